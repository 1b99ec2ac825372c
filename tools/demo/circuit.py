"""Where training starts: an induction circuit (Olsson et al. 2209.11895) wired by hand into blocks 0 and 1.

Looking up "who was X" takes heads that carry a word to a later place, and a head that finds X by them.
Training from random weights had not found such a circuit after 800 steps of 16 documents; from this start the
answers of roll calls are right 64 % of the time after 40 steps and 95 % after 340. What the circuit cannot do
(negation, opposites, other wordings, missing evidence), training adds.
"""

from __future__ import annotations

import math

import torch
from transformers import LlamaForCausalLM

OFFSETS = (1, 2, 3, 5)  # how many words back the four heads of block 0 look
CONSTANT = 3.0  # first coordinate of every embedding, in standard deviations of the others


@torch.no_grad()
def wire(model: LlamaForCausalLM) -> None:
    """Overwrite parts of a fresh model (4 heads, 2 key/value heads, untied embeddings) in place."""
    embedding = model.model.embed_tokens.weight
    for layer in model.model.layers:
        # Sixteen branches of full size would drown the embeddings.
        layer.self_attn.o_proj.weight.mul_(0.2)
        layer.mlp.down_proj.weight.mul_(0.2)
    model.lm_head.weight.copy_(embedding)  # copying a word is then answering with it
    embedding[:, 0] = CONSTANT * model.config.initializer_range
    _look_back(model)
    _look_up(model)


def _look_back(model: LlamaForCausalLM, *, sharpness: float = 70.0) -> None:
    """Block 0: head n carries a 24-number code of the word OFFSETS[n] back.

    Queries and keys read the constant coordinate alone, and rotary angles make the score a function of
    distance, highest at the wanted one. Three fast rotary pairs suffice; slower ones would only add the
    jitter of the key's length.
    """
    size = model.config.hidden_size // model.config.num_attention_heads
    attention = model.model.layers[0].self_attn
    pairs = torch.arange(3)
    frequencies = 10000.0 ** (-pairs * 2 / size)
    scale = math.sqrt(sharpness) / CONSTANT
    for kv in range(2):
        attention.k_proj.weight[kv * size + pairs, 0] = scale
    for head, offset in enumerate(OFFSETS):
        angles = -frequencies * offset
        attention.q_proj.weight[head * size + pairs, 0] = scale * angles.cos()
        attention.q_proj.weight[head * size + size // 2 + pairs, 0] = scale * angles.sin()
    attention.v_proj.weight.normal_(0, 0.1)
    attention.v_proj.weight[:, 0] = 0  # the constant says nothing of the word
    torch.nn.init.orthogonal_(attention.o_proj.weight, gain=0.1)


def _look_up(model: LlamaForCausalLM, *, sharpness: float = 4.0) -> None:
    """Block 1: find earlier places of the question's word, copy what stands two or three words before.

    The question's word is three back where plain text ends, five back where the chat template does: heads 0
    and 2 ask with the one, heads 1 and 3 with the other. Heads 0 and 1 copy the word two back, heads 2 and 3
    the one three back.
    """
    size = model.config.hidden_size // model.config.num_attention_heads
    carry, find = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    code = {1: carry.v_proj.weight[:size], 2: carry.v_proj.weight[:size], 3: carry.v_proj.weight[size:]}
    written = {o: carry.o_proj.weight[:, n * size : (n + 1) * size] for n, o in enumerate(OFFSETS)}
    slow = (torch.arange(size) % (size // 2)) >= 5  # rotary pairs that hardly turn over a prompt's length
    for kv, offset in enumerate((2, 3)):
        rows = slice(kv * size, (kv + 1) * size)
        find.k_proj.weight[rows] = code[3] * slow[:, None]
        find.v_proj.weight[rows] = written[offset].T * 10
        for head, asked in ((2 * kv, 3), (2 * kv + 1, 5)):
            find.q_proj.weight[head * size : (head + 1) * size] = (
                sharpness * 10 * written[asked].T * slow[:, None]
            )
            find.o_proj.weight[:, head * size : (head + 1) * size] = 0.1 * code[offset].T
