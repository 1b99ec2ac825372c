"""Pure solvers on arrays."""
