#!/usr/bin/env python3
"""The Chinese pages are those of the English ones: the same headings by level, the same tables by rows and columns, the same
code blocks and code in the text, the same links, and the same numbers, paragraph by paragraph. A difference is reported with
the lines of both pages; the words themselves are for a reader to compare.

Comments behind commands in code blocks may be translated. Links lead to the Chinese page where there is one.
"""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from markdown import CODE, LINK, ROOT, read  # noqa: E402

PAGES = ("README.md", *(f"docs/{name}.md" for name in ("OPERATIONS", "MIGRATING")))
CHINESE = re.compile(r"[\u4e00-\u9fff]")
NUMBER = re.compile(r"\d[\d,.]*(?<![,.])")
COMMENT = re.compile(r"\s+# .*$", re.M)
WORDS_IN_A_SENTENCE = 8  # English text of so many words in a Chinese page was left untranslated.


def chinese(name):
    return name.replace(".md", ".zh-CN.md")


def slug(heading):
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", CODE.sub(r"\1", heading).lower()).replace(" ", "-")


class Comparison:
    def __init__(self, page):
        self.page, self.problems = page, []
        self.folder = (ROOT / page).parent
        self.en, self.zh = read(ROOT / page), read(ROOT / chinese(page))
        anchors = [[slug(b.text) for b in blocks if b.kind == "heading"] for blocks in (self.en, self.zh)]
        self.anchors = dict(zip(*anchors))

    def report(self, en_line, zh_line, text):
        self.problems.append(f"{chinese(self.page)}:{zh_line} ({self.page}:{en_line}): {text}")

    def target(self, link):
        """Where a link of the English page leads in the Chinese one."""
        if link.startswith("#"):
            return "#" + self.anchors.get(link[1:], "?" + link[1:])
        path, _, anchor = link.partition("#")
        translated = chinese(path)
        if path.endswith(".md") and ":" not in path and not anchor and (self.folder / translated).exists():
            return translated
        return link

    def text(self, en, zh, en_line, zh_line):
        """Text of a paragraph, a heading, or a cell."""
        for what, of_en, of_zh in (
                ("code", CODE.findall(en), CODE.findall(zh)),
                ("links", [self.target(t) for t in LINK.findall(CODE.sub("", en))], LINK.findall(CODE.sub("", zh))),
                ("numbers", self.numbers(en), self.numbers(zh))):
            only_en = [c for c in of_en if of_en.count(c) > of_zh.count(c)]
            only_zh = [c for c in of_zh if of_zh.count(c) > of_en.count(c)]
            if only_en or only_zh:
                self.report(en_line, zh_line, f"{what}: only in the English text {sorted(set(only_en))}, only in the Chinese "
                                              f"{sorted(set(only_zh))}")
        bare = re.sub(r"\]\([^)\s]+\)", "]", CODE.sub("", zh))  # A link's words are kept, its target is not.
        if len(re.findall(r"[A-Za-z]{2,}", CODE.sub("", en))) >= WORDS_IN_A_SENTENCE and not CHINESE.search(bare):
            self.report(en_line, zh_line, f"not translated: {zh[:60]}")

    @staticmethod
    def numbers(text):
        return NUMBER.findall(LINK.sub("", CODE.sub("", text)))

    def table(self, en, zh):
        if len(en.rows) != len(zh.rows):
            self.report(en.line, zh.line, f"a table of {len(zh.rows)} rows, in English {len(en.rows)}")
        for (en_line, en_cells), (zh_line, zh_cells) in zip(en.rows, zh.rows):
            if len(en_cells) != len(zh_cells):
                self.report(en_line, zh_line, f"a row of {len(zh_cells)} cells, in English {len(en_cells)}")
            for en_cell, zh_cell in zip(en_cells, zh_cells):
                self.text(en_cell, zh_cell, en_line, zh_line)

    def fence(self, en, zh):
        pairs = list(zip(en.text.splitlines(), zh.text.splitlines()))
        if en.text.count("\n") != zh.text.count("\n"):
            self.report(en.line, zh.line, f"a code block of {zh.text.count(chr(10))} lines, in English {en.text.count(chr(10))}")
        for i, (en_line, zh_line) in enumerate(pairs, 1):
            if COMMENT.sub("", en_line) != COMMENT.sub("", zh_line):
                self.report(en.line + i, zh.line + i, f"another command: {zh_line}")

    def run(self):
        first = [f"[中文]({pathlib.Path(chinese(self.page)).name})", f"[English]({pathlib.Path(self.page).name})"]
        for blocks, want, name in zip((self.en, self.zh), first, (self.page, chinese(self.page))):
            if not blocks or blocks[0].text != want:
                self.problems.append(f"{name}:1: the first line is not {want}")
        en, zh = self.en[1:], self.zh[1:]
        for a, b in zip(en, zh):
            if (a.kind, a.level) != (b.kind, b.level):
                kinds = [f"{block.kind} of level {block.level}" if block.level else block.kind for block in (b, a)]
                self.report(a.line, b.line, f"here: {kinds[0]}; in English: {kinds[1]}; the rest was not compared")
                return self.problems
            if a.kind == "table":
                self.table(a, b)
            elif a.kind == "fence":
                self.fence(a, b)
            else:
                self.text(a.text, b.text, a.line, b.line)
        if len(en) != len(zh):
            longer = max(en, zh, key=len)
            self.report(en[-1].line, zh[-1].line, f"one page ends sooner: line {longer[min(len(en), len(zh))].line} of the other is missing")
        return self.problems


def main():
    problems = [problem for page in PAGES for problem in Comparison(page).run()]
    print("\n".join(problems) or f"{len(PAGES)} pages agree with their translations")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
