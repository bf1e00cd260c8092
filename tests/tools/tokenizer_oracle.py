"""Writes tests/data/tokenizers/: small tokenizers and the results of Hugging Face's `tokenizers` for texts and ids.

The tests compare text/tokenizer with it. Run again after a change of the cases:
    python3 -m venv build/oracles && build/oracles/bin/pip install tokenizers
    build/oracles/bin/python tests/tools/tokenizer_oracle.py
"""

import json
import pathlib
import random
import unicodedata

from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/data/tokenizers"
GPT_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
               r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEXTS = [
    "", " ", "\n", "a", "Hello, world!", "The quick brown fox jumps over the lazy dog.",
    "don't DON'T we'll I'm he'd", "  leading and trailing  ", "tabs\tand\r\nnewlines\n\n\n", "1234567890 12 3",
    "床前明月光,疑是地上霜。", "한국어 텍스트", "ไทย कखग עברית العربية", "e\u0301 \u00e9 \u1e9b\u0323 \u2126 \u212b",
    "🚀 😶\u200d🌫️ 🦙🦙", "a\u00a0b\u2003c\u3000d\u180ee\u0085f", "x = y[0] + 3.14 // 2;\n\treturn -1", "<think>", "<a><b></a>",
    "½ ² ⅷ ٣ ३", "\ufdd0\ufffe\U0010ffff", "a" * 70, "ab" * 60 + " " * 60, "=" * 100,
]
ALPHABETS = [
    "abcdefghij etaoin", "ABC abc 'sSdD ", "0123456789 .,", " \t\r\n\u00a0\u3000\u0085", "éèüß\u0301\u0323\u0308aeo",
    "中文字符的一是不", "가각한글\u1100\u1161\u11a8", "<>/｜|▁thinkab ", "!?#$%&()*+-=[]{}~^_`\\\"'", "कखगाि\u093e\u0985\u09be\u09c7",
]


def random_text(rng, specials):
    parts = []
    for _ in range(rng.randrange(1, 7)):
        kind = rng.random()
        if kind < 0.15:
            parts.append(rng.choice(specials or ["<x>"]))
        elif kind < 0.25:
            token = rng.choice(specials or ["<x>"])
            parts.append(token[:rng.randrange(len(token))])
        elif kind < 0.4:  # Any character that this Python's table (Unicode 14 in Python 3.11) knows.
            while unicodedata.category(char := chr(rng.randrange(0x20, 0x20000))) in ("Cn", "Cs", "Co"):
                pass
            parts.append(char)
        else:
            alphabet = rng.choice(ALPHABETS)
            parts.append("".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 12))))
    return "".join(parts)


def write_vectors(path, tokenizer, specials, count, seed, first_id=0):
    rng = random.Random(seed)
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        def write(vector):
            ids = vector["ids"]
            vector["decoded"] = tokenizer.decode(ids, skip_special_tokens=False)
            vector["decoded_skip"] = tokenizer.decode(ids, skip_special_tokens=True)
            out.write(json.dumps(vector, ensure_ascii=True, separators=(",", ":")) + "\n")

        texts = TEXTS + [f"a {s} b{s}{s}" for s in specials] + [random_text(rng, specials) for _ in range(count)]
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            with_special = tokenizer.encode(text, add_special_tokens=True).ids
            vector = {"text": text, "ids": ids}
            if with_special != ids:
                vector["ids_with_special"] = with_special
            write(vector)
        # Bytes that are no UTF-8; but of vocabularies of characters, whose byte tokens start from first_id - 256: there
        # Hugging Face's library replaces each byte of a run, also the valid ones, which no stream can know in time.
        for _ in range(count // 2):
            write({"ids": [rng.randrange(first_id, size) for _ in range(rng.randrange(1, 12))]})


def byte_characters():
    printable = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    others = iter(range(0x100, 0x200))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def small_model(**more):
    """256 bytes and the merges of some words, in an order that makes conflicts."""
    alphabet = byte_characters()
    vocab = {c: i for i, c in enumerate(alphabet)}
    merges = []
    for word in ["the", " the", "an", "and", " and", "in", "ing", "aa", "aaaa", "ab", "abab", "  ", "    ", "==", "10",
                 "'s", "é", "中", "文", "中文", "han", "nd", "hand", "think", "<a", "\r\n", "é!", "on", "ons"]:
        pieces = [alphabet[b] for b in word.encode()]
        while len(pieces) > 1:
            joined = pieces[-2] + pieces[-1] if len(word) % 2 else pieces[0] + pieces[1]
            pair = [pieces[-2], pieces[-1]] if len(word) % 2 else [pieces[0], pieces[1]]
            if joined not in vocab:
                vocab[joined] = len(vocab)
            if pair not in merges:
                merges.append(pair)
            pieces = pieces[:-2] + [joined] if len(word) % 2 else [joined] + pieces[2:]
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocab, "merges": merges, **more}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(pattern, behavior, invert=False, regex=True):
    return {"type": "Split", "pattern": {"Regex" if regex else "String": pattern}, "behavior": behavior,
            "invert": invert}


def token(content, **flags):
    base = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return {"content": content, **base, **flags}


def small_tokenizer(pre_tokenizers, added=(), normalizer=None, post_processor=None, **model):
    spec = small_model(**model)
    size = len(spec["vocab"])
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": size + i, **t} for i, t in enumerate(added)], "normalizer": normalizer,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(pre_tokenizers)},
            "post_processor": post_processor, "decoder": BYTE_LEVEL, "model": spec}


def template(size):
    special = {"<s>": {"id": "<s>", "ids": [size], "tokens": ["<s>"]},
               "</s>": {"id": "</s>", "ids": [size + 1], "tokens": ["</s>"]}}
    return {"type": "Sequence", "processors": [
        BYTE_LEVEL,
        {"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "</s>", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": special}]}


def small_tokenizers():
    size = len(small_model()["vocab"])
    tokens = [token("<s>", special=True), token("</s>", special=True), token("<think>"), token("</think>"),
              token("<left>", lstrip=True), token("<right>", rstrip=True, special=True), token("word", single_word=True),
              token("<both>", lstrip=True, rstrip=True, normalized=True), token("<norm>", normalized=True),
              token("caf\u00e9", normalized=True), token("\u0151", normalized=True), token("<t"), token("ab c", normalized=True),
              token("wo", normalized=True, single_word=True)]
    return {
        "gpt": small_tokenizer([split(GPT_PATTERN, "Isolated"), BYTE_LEVEL], tokens[:4], ignore_merges=True,
                               merges=[" ".join(m) for m in small_model()["merges"]]),
        "gpt2": small_tokenizer([{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                                  "use_regex": True}], tokens[:4]),
        "tokens": small_tokenizer([split(r"\s?\p{L}+", "Isolated"), BYTE_LEVEL], tokens, {"type": "NFC"},
                                  template(size)),
        "tokens-plain": small_tokenizer([BYTE_LEVEL], tokens,
                                        {"type": "Sequence", "normalizers": []}),
        "removed": small_tokenizer([split(r"\s+$", "Removed"), split(", ", "Removed", regex=False), BYTE_LEVEL]),
        "previous": small_tokenizer([split(r"\s", "MergedWithPrevious"), split("a", "MergedWithPrevious", True),
                                     BYTE_LEVEL]),
        "next": small_tokenizer([split(r"\s", "MergedWithNext"), split("a+", "MergedWithNext", True), BYTE_LEVEL]),
        "contiguous": small_tokenizer([split(r"[a-f]", "Contiguous"), {"type": "Digits", "individual_digits": False},
                                       split(r"\d", "Contiguous", True), BYTE_LEVEL]),
        "empty": small_tokenizer([split(r"b*", "Isolated"), split(r"(?<=a)|^t", "Isolated"),
                                  split("x*", "MergedWithNext", True), split("o*", "MergedWithPrevious"), BYTE_LEVEL]),
        "inverted": small_tokenizer([split(r"\S+", "Removed", True), {"type": "Digits", "individual_digits": True},
                                     {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                                      "use_regex": True}]),
    }


def character_model():
    """Characters, "<0xNN>" for the bytes of others, and the merges of some words, in an order that makes conflicts."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    for char in "▁abcdefghijklmnopqrstuvwxyzTHE0123456789.,!?'=<>/é中文\u0301":
        vocab[char] = len(vocab)
    merges = []
    for word in ["▁the", "the", "an", "▁and", "and", "in", "ing", "aa", "aaaa", "ab", "abab", "▁▁", "▁▁▁▁", "==", "10",
                 "▁a", "中文", "han", "nd", "think", "on", "ons", "▁中", "e\u0301", "s▁"]:
        pieces = list(word)
        while len(pieces) > 1:
            first = len(word) % 2 == 0
            pair = pieces[:2] if first else pieces[-2:]
            vocab.setdefault("".join(pair), len(vocab))
            if pair not in merges:
                merges.append(pair)
            pieces = ["".join(pair)] + pieces[2:] if first else pieces[:-2] + ["".join(pair)]
    return {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": vocab, "merges": merges}


def character_tokenizer(normalizer=None, pre_tokenizer=None, strip=True):
    special = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    decoders = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    if strip:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    model = character_model()
    return {"version": "1.0", "truncation": {"direction": "Right", "max_length": 9999, "strategy": "LongestFirst", "stride": 0},
            "padding": None,
            "added_tokens": [{"id": i, **token(t, special=True)} for i, t in enumerate(["<unk>", "<s>", "</s>"])]
            + [{"id": len(model["vocab"]), **token("<think>")}],
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
            "post_processor": {"type": "TemplateProcessing",
                               "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                          {"Sequence": {"id": "A", "type_id": 0}}],
                               "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                               "special_tokens": special},
            "decoder": {"type": "Sequence", "decoders": decoders}, "model": model}


def character_tokenizers():
    """As Llama 2's converted vocabularies are: with a normalizer in older files, with Metaspace in newer ones."""
    def metaspace(scheme, split_words):
        return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split_words}
    return {
        "characters": character_tokenizer({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}),
        "characters-first": character_tokenizer(None, metaspace("first", False)),
        "characters-always": character_tokenizer(None, metaspace("always", True)),
        "characters-never": character_tokenizer(None, metaspace("never", False), strip=False),
    }


def main():
    for name, spec in (small_tokenizers() | character_tokenizers()).items():
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(spec, ensure_ascii=False, separators=(",", ":"))
        (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
        specials = [t["content"] for t in spec["added_tokens"]]
        write_vectors(folder / "vectors.jsonl", Tokenizer.from_str(text), specials, 120, name,
                      259 if spec["model"]["byte_fallback"] else 0)
    tiny = Tokenizer.from_file(str(ROOT / "models/fathom-tiny/tokenizer.json"))
    added = json.loads((ROOT / "models/fathom-tiny/tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    write_vectors(OUT / "fathom-tiny.jsonl", tiny, [t["content"] for t in added], 300, "fathom-tiny")


if __name__ == "__main__":
    main()
