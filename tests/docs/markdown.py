"""tests/docs/markdown.py: the parts of a Markdown page that the tests of the docs look at: headings, tables, code blocks, code in
the text, links. Only what our pages use: ATX headings, pipe tables, fences of three backticks, code spans of one backtick.
"""
import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclasses.dataclass
class Block:
    """A heading, a table, a fence, or a line of text, with the number of its first line in the file."""
    kind: str  # "heading", "table", "fence", "text"
    line: int
    text: str = ""  # Of a heading, a line of text; the content of a fence.
    level: int = 0  # Of a heading.
    rows: list = dataclasses.field(default_factory=list)  # Of a table: lists of cells, without the line of dashes.

    def code(self):
        return CODE.findall(self.text)

    def links(self):
        return LINK.findall(CODE.sub("", self.text))


def cells(line):
    """The cells of a line of a table; a | within code is escaped as \\| or stands in a code span."""
    parts, start, in_code = [], 0, False
    body = line.strip()[1:].removesuffix("|")
    for i, c in enumerate(body):
        if c == "`":
            in_code = not in_code
        elif c == "|" and not in_code and (i == 0 or body[i - 1] != "\\"):
            parts.append(body[start:i].strip())
            start = i + 1
    return [*parts, body[start:].strip()]


def read(path):
    """The blocks of a page, in order; blank lines are left out."""
    blocks, fence, table = [], None, None
    for number, line in enumerate(pathlib.Path(path).read_text().splitlines(), 1):
        if line.startswith("```"):
            if fence is None:
                fence = Block("fence", number)
            else:
                blocks.append(fence)
                fence = None
        elif fence is not None:
            fence.text += line + "\n"
        elif line.startswith("|"):
            if table is None:
                table = Block("table", number)
                blocks.append(table)
            if not re.fullmatch(r"[|\s:-]+", line):
                table.rows.append((number, cells(line)))
            elif len(table.rows) != 1:  # A row of empty cells.
                table.rows.append((number, cells(line)))
            continue
        elif match := re.match(r"(#+) (.*)", line):
            blocks.append(Block("heading", number, match[2], len(match[1])))
        elif line.strip():
            blocks.append(Block("text", number, line))
        table = None
    assert fence is None, f"{path}: the code block of line {fence.line} has no end"
    return blocks
