# ruff: noqa: E501 (templates read better with one of their lines to a line)
"""Chat templates in the manner of real families, and beside each the same text written out by a plain function
that knows which message every piece comes from.

The templates are our own short ones after each family's documentation: they strip, cut, move, merge and leave out
what the real ones do.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Piece = tuple[int | None, int, str]
"""(message or None for the template's own, offset in its content, text)."""


def own(text: str) -> Piece:
    return (None, 0, text)


def whole(index: int, message: dict[str, Any]) -> Piece:
    return (index, 0, message.get("content") or "")


def trimmed(index: int, message: dict[str, Any], characters: str | None = None) -> Piece:
    text = message.get("content") or ""
    return (index, len(text) - len(text.lstrip(characters)), text.strip(characters))


def after_thought(index: int, message: dict[str, Any]) -> Piece:
    """What follows the last </think>, without the line breaks before it."""
    text = message.get("content") or ""
    start = text.rfind("</think>")
    start = 0 if start < 0 else start + len("</think>")
    start += len(text[start:]) - len(text[start:].lstrip("\n")) if start else 0
    return (index, start, text[start:])


@dataclass(frozen=True)
class Family:
    """A template, the function that writes the same, and the roles that it takes."""

    template: str
    pieces: Callable[..., list[Piece]]
    system: bool = True
    tools: bool = False
    options: tuple[str, ...] = ()


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chatml(messages, prompt=True, **_):
    out = []
    for i, m in enumerate(messages):
        out += [own(f"<|im_start|>{m['role']}\n"), whole(i, m), own("<|im_end|>\n")]
    return [*out, *([own("<|im_start|>assistant\n")] if prompt else [])]


LLAMA3 = (
    "{%- set date = strftime_now('%d %b %Y') -%}"
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date }}\n\n"
    "{%- if messages[0]['role'] == 'system' %}{{ '\n\n' + messages[0]['content'] | trim }}"
    "{%- set messages = messages[1:] %}{%- endif %}<|eot_id|>"
    "{%- for m in messages %}"
    "{%- if m.tool_calls %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{{- m.tool_calls[0].function | tojson }}<|eot_id|>"
    "{%- elif m.role == 'tool' %}<|start_header_id|>ipython<|end_header_id|>\n\n{{- m.content | tojson }}<|eot_id|>"
    "{%- else %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{- '\n\n' + m.content | trim }}<|eot_id|>"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{{ '\n\n' }}{% endif %}"
)


def llama3(messages, prompt=True, date="26 Jul 2024", **_):
    head = "<|start_header_id|>{}<|end_header_id|>".format
    out = [own(f"<|begin_of_text|>{head('system')}\n\nToday Date: {date}")]
    rest = list(enumerate(messages))
    if messages[0]["role"] == "system":
        out += [own("\n\n"), trimmed(0, messages[0])]
        rest = rest[1:]
    out.append(own("<|eot_id|>"))
    for i, m in rest:
        if m.get("tool_calls"):
            out.append(own(head("assistant") + dumped(m["tool_calls"][0]["function"]) + "<|eot_id|>"))
        elif m["role"] == "tool":
            out += [own(head("ipython")), *quoted(i, m), own("<|eot_id|>")]
        else:
            out += [own(head(m["role"]) + "\n\n"), trimmed(i, m), own("<|eot_id|>")]
    return [*out, *([own(head("assistant") + "\n\n")] if prompt else [])]


def quoted(index, message):
    """A content as a JSON string; where that escapes something, its characters stand nowhere: the offset is
    None.
    """
    text = message["content"]
    return [own('"'), (index, 0 if dumped(text) == f'"{text}"' else None, dumped(text)[1:-1]), own('"')]


def dumped(value):
    return json.dumps(value, ensure_ascii=False)


QWEN25 = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}{{- '<|im_start|>assistant' }}"
    "{%- if m.content %}{{- '\n' + m.content }}{%- endif %}"
    "{%- for call in m.tool_calls %}{{- '\n<tool_call>\n' }}{{- call.function | tojson }}{{- '\n</tool_call>' }}{%- endfor %}"
    "{{- '<|im_end|>\n' }}"
    "{%- elif m.role == 'tool' %}{{- '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


def qwen25(messages, prompt=True, **_):
    out = []
    if messages[0]["role"] != "system":
        out.append(own("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"))
    for i, m in enumerate(messages):
        out += _chatml_turn(i, m, whole(i, m))
    return [*out, *([own("<|im_start|>assistant\n")] if prompt else [])]


def _chatml_turn(i, m, said):
    if m.get("tool_calls"):
        out = [own("<|im_start|>assistant"), *([own("\n"), said] if said[2] else [])]
        out += [own(f"\n<tool_call>\n{dumped(call['function'])}\n</tool_call>") for call in m["tool_calls"]]
        return [*out, own("<|im_end|>\n")]
    if m["role"] == "tool":
        return [own("<|im_start|>user\n<tool_response>\n"), said, own("\n</tool_response><|im_end|>\n")]
    return [own(f"<|im_start|>{m['role']}\n"), said, own("<|im_end|>\n")]


QWEN3 = (
    "{%- set ns = namespace(last=-1) %}"
    "{%- for m in messages %}{%- if m.role == 'user' and not (m.content.startswith('<tool_response>') and "
    "m.content.endswith('</tool_response>')) %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}"
    "{%- if m.role in ('user', 'system') %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}"
    "{%- set content = m.content if m.content is string else '' %}{%- set thought = '' %}"
    "{%- if m.reasoning_content is string %}{%- set thought = m.reasoning_content %}"
    "{%- elif '</think>' in content %}"
    "{%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>assistant\n' }}"
    "{%- if loop.index0 > ns.last and thought %}{{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}"
    "{%- else %}{{- content }}{%- endif %}"
    "{%- for call in m.tool_calls or [] %}{{- '\n<tool_call>\n' }}{{- call.function | tojson }}{{- '\n</tool_call>' }}{%- endfor %}"
    "{{- '<|im_end|>\n' }}"
    "{%- elif m.role == 'tool' %}{{- '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)


def qwen3(messages, prompt=True, enable_thinking=True, **_):
    out = []
    last = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
    for i, m in enumerate(messages):
        if m["role"] != "assistant":
            out += _chatml_turn(i, m, whole(i, m))
            continue
        text = m.get("content") or ""
        out.append(own("<|im_start|>assistant\n"))
        if i > last and "</think>" in text:
            before = text.split("</think>")[0].rstrip("\n")
            thought = before.split("<think>")[-1]
            start = len(before) - len(thought) + len(thought) - len(thought.lstrip("\n"))
            if thought.strip("\n"):
                end, answer = start + len(thought.strip("\n")), after_thought(i, m)
                # where the message wrote the template's own line breaks and tags, they are the message's too
                joined = text[end : answer[1]] == "\n</think>\n\n" and bool(answer[2])
                closing = (i, end, "\n</think>\n\n") if joined else own("\n</think>\n\n")
                opening = (
                    (i, start - 8, "<think>\n") if text[:start].endswith("<think>\n") else own("<think>\n")
                )
                out += [opening, (i, start, thought.strip("\n")), closing]
        out += [after_thought(i, m)]
        out += [
            own(f"\n<tool_call>\n{dumped(c['function'])}\n</tool_call>") for c in m.get("tool_calls") or []
        ]
        out.append(own("<|im_end|>\n"))
    tail = "<|im_start|>assistant\n" + ("" if enable_thinking else "<think>\n\n</think>\n\n")
    return [*out, *([own(tail)] if prompt else [])]


GEMMA3 = (
    "<bos>{%- if messages[0]['role'] == 'system' %}{%- set prefix = messages[0]['content'] + '\n\n' %}"
    "{%- set rest = messages[1:] %}{%- else %}{%- set prefix = '' %}{%- set rest = messages %}{%- endif %}"
    "{%- for m in rest %}"
    "{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{%- endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + (prefix if loop.first else '') }}"
    "{{ m['content'] | trim }}{{ '<end_of_turn>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{%- endif %}"
)


def gemma3(messages, prompt=True, **_):
    out, rest = [own("<bos>")], list(enumerate(messages))
    first = []
    if messages[0]["role"] == "system":
        first, rest = [whole(0, messages[0]), own("\n\n")], rest[1:]
    for number, (i, m) in enumerate(rest):
        name = "model" if m["role"] == "assistant" else m["role"]
        out += [own(f"<start_of_turn>{name}\n"), *(first if not number else []), trimmed(i, m)]
        out.append(own("<end_of_turn>\n"))
    return [*out, *([own("<start_of_turn>model\n")] if prompt else [])]


MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set rest = messages[1:] %}"
    "{%- else %}{%- set rest = messages %}{%- endif %}<s>"
    "{%- for m in rest %}{%- if m['role'] == 'user' %}"
    "{%- if system is defined and loop.last %}{{- '[INST] ' + system + '\n\n' + m['content'] + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + m['content'] + '[/INST]' }}{%- endif %}"
    "{%- elif m['role'] == 'assistant' %}{{- ' ' + m['content'] | trim + '</s>' }}"
    "{%- else %}{{ raise_exception('only user and assistant roles') }}{%- endif %}{%- endfor %}"
)


def mistral(messages, **_):
    out, rest = [own("<s>")], list(enumerate(messages))
    system = []
    if messages[0]["role"] == "system":
        system, rest = [whole(0, messages[0]), own("\n\n")], rest[1:]
    for i, m in rest:
        if m["role"] == "user":
            last = i == len(messages) - 1
            out += [own("[INST] "), *(system if last else []), whole(i, m), own("[/INST]")]
        else:
            out += [own(" "), trimmed(i, m), own("</s>")]
    return out


PHI3 = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ '<|system|>\n' + m['content'] + '<|end|>\n' }}"
    "{% elif m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + '<|end|>\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ '<|assistant|>\n' + m['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


def phi3(messages, prompt=True, **_):
    out = []
    for i, m in enumerate(messages):
        if m["role"] != "tool":
            out += [own(f"<|{m['role']}|>\n"), whole(i, m), own("<|end|>\n")]
    return [*out, own("<|assistant|>\n" if prompt else "¶")]


SMOLLM3 = (
    "{%- set mode = 'on' if (enable_thinking is not defined or enable_thinking) else 'off' %}"
    "{{- '<|im_start|>system\n## Metadata\n\nToday Date: ' + strftime_now('%d %B %Y') + '\nReasoning: ' + mode + '\n\n' }}"
    "{%- if messages[0].role == 'system' %}{%- set said = messages[0].content.replace('/no_think', '').replace('/think', '').rstrip() %}"
    "{{- '## Instructions\n\n' + said + '\n\n' }}{%- set rest = messages[1:] %}{%- else %}{%- set rest = messages %}{%- endif %}"
    "{{- '<|im_end|>\n' }}"
    "{%- for m in rest %}{%- if m.role == 'assistant' %}{{- '<|im_start|>assistant\n' + m.content.lstrip('\n') + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' + ('' if mode == 'on' else '<think>\n\n</think>\n') }}{%- endif %}"
)


def smollm3(messages, prompt=True, enable_thinking=True, date="26 July 2024", **_):
    mode = "on" if enable_thinking else "off"
    out = [own(f"<|im_start|>system\n## Metadata\n\nToday Date: {date}\nReasoning: {mode}\n\n")]
    rest = list(enumerate(messages))
    if messages[0]["role"] == "system":
        text = messages[0]["content"]
        said, flag = text, ""
        for name in ("/no_think", "/think"):
            if name in said:
                said, flag = said.replace(name, ""), name
        at = text.index(flag) if flag else len(text)
        stripped = said.rstrip()
        parts = [(0, 0, stripped[:at]), (0, at + len(flag), stripped[at:])]
        out += [own("## Instructions\n\n"), *parts, own("\n\n")]
        rest = rest[1:]
    out.append(own("<|im_end|>\n"))
    for i, m in rest:
        role = "assistant" if m["role"] == "assistant" else "user"
        text = m["content"]
        skip = len(text) - len(text.lstrip("\n")) if role == "assistant" else 0
        out += [own(f"<|im_start|>{role}\n"), (i, skip, text[skip:]), own("<|im_end|>\n")]
    tail = "<|im_start|>assistant\n" + ("" if enable_thinking else "<think>\n\n</think>\n")
    return [*out, *([own(tail)] if prompt else [])]


R1 = (
    "<bos>{%- for m in messages %}{%- if m['role'] == 'system' %}{{- m['content'] }}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- if m['role'] == 'user' %}{{- '<|User|>' + m['content'] }}"
    "{%- elif m['role'] == 'assistant' and m['content'] %}{%- set content = m['content'] %}"
    "{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1] %}{%- endif %}"
    "{{- '<|Assistant|>' + content + '<|end|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|Assistant|><think>\n' }}{%- endif %}"
)


def r1(messages, prompt=True, **_):
    out = [own("<bos>"), *(whole(i, m) for i, m in enumerate(messages) if m["role"] == "system")]
    for i, m in enumerate(messages):
        if m["role"] == "user":
            out += [own("<|User|>"), whole(i, m)]
        elif m["role"] == "assistant" and m.get("content"):
            start = m["content"].rfind("</think>")
            start = 0 if start < 0 else start + len("</think>")
            out += [own("<|Assistant|>"), (i, start, m["content"][start:]), own("<|end|>")]
    return [*out, *([own("<|Assistant|><think>\n")] if prompt else [])]


GPT_OSS = (
    "{{- '<|start|>system<|message|>You are ChatGPT.\nCurrent date: ' + strftime_now('%Y-%m-%d') + '<|end|>' }}"
    "{%- if messages[0].role in ('system', 'developer') %}"
    "{{- '<|start|>developer<|message|># Instructions\n\n' + messages[0].content + '\n\n<|end|>' }}"
    "{%- set rest = messages[1:] %}{%- else %}{%- set rest = messages %}{%- endif %}"
    "{%- for m in rest %}{%- if m.role == 'assistant' %}"
    "{%- if m.tool_calls %}{{- '<|start|>assistant to=functions.' + m.tool_calls[0].function.name }}"
    "{{- '<|channel|>commentary json<|message|>' }}{{- m.tool_calls[0].function.arguments | tojson }}{{- '<|call|>' }}"
    "{%- else %}{%- if m.thinking and loop.last %}{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{%- endif %}"
    "{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{%- endif %}"
    "{%- elif m.role == 'tool' %}{{- '<|start|>functions<|channel|>commentary<|message|>' + m.content | tojson + '<|end|>' }}"
    "{%- else %}{{- '<|start|>user<|message|>' + m.content + '<|end|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}"
)


def gpt_oss(messages, prompt=True, date="2024-07-26", **_):
    out = [own(f"<|start|>system<|message|>You are ChatGPT.\nCurrent date: {date}<|end|>")]
    rest = list(enumerate(messages))
    if messages[0]["role"] == "system":
        out += [
            own("<|start|>developer<|message|># Instructions\n\n"),
            whole(0, messages[0]),
            own("\n\n<|end|>"),
        ]
        rest = rest[1:]
    for i, m in rest:
        if m.get("tool_calls"):
            call = m["tool_calls"][0]["function"]
            head = f"<|start|>assistant to=functions.{call['name']}<|channel|>commentary json<|message|>"
            out.append(own(head + dumped(call["arguments"]) + "<|call|>"))
        elif m["role"] == "assistant":
            out += [own("<|start|>assistant<|channel|>final<|message|>"), whole(i, m), own("<|end|>")]
        elif m["role"] == "tool":
            out += [own("<|start|>functions<|channel|>commentary<|message|>"), *quoted(i, m), own("<|end|>")]
        else:
            out += [own("<|start|>user<|message|>"), whole(i, m), own("<|end|>")]
    return [*out, *([own("<|start|>assistant")] if prompt else [])]


FAMILIES = {
    "chatml": Family(CHATML, chatml),
    "llama3": Family(LLAMA3, llama3, tools=True, options=("date",)),
    "qwen2.5": Family(QWEN25, qwen25, tools=True),
    "qwen3": Family(QWEN3, qwen3, tools=True, options=("enable_thinking",)),
    "gemma3": Family(GEMMA3, gemma3),
    "mistral": Family(MISTRAL, mistral),
    "phi3": Family(PHI3, phi3),
    "smollm3": Family(SMOLLM3, smollm3, options=("enable_thinking", "date")),
    "deepseek_r1": Family(R1, r1),
    "gpt_oss": Family(GPT_OSS, gpt_oss, tools=True, options=("date",)),
}


def letter_tokenizer(template: str) -> Any:
    """A tokenizer with one token per character, so that a token is what its character is."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = [chr(code) for code in range(1, 0x250)]
    vocabulary = {char: index for index, char in enumerate(["<unk>", *alphabet])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="¶", chat_template=template
    )
