#!/usr/bin/env python3
"""Writes tests/data/chat/vectors.jsonl: template snippets with what Python's Jinja makes of them.

The environment is the one chat templates are written for: sandboxed, trim_blocks, lstrip_blocks, loop controls, tojson as
json.dumps. Run after changing SNIPPETS: python3 tests/tools/make_chat_vectors.py (needs the jinja2 package).
"""
import json
import pathlib

import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

SNIPPETS = [
    "plain text", "a{{ 1 }}b", "{{ x }}|{{ none }}|{{ true }}|{{ 1.0 }}|{{ 1e0 if false else 2.5 }}",
    "{{ 'a' + 'b' }}{{ 1 + 2 * 3 - 4 // 3 % 2 }}{{ 7 / 2 }}{{ 2 ** 3 }}{{ -7 // 2 }}{{ -7 % 3 }}",
    "{{ 'a' ~ 1 ~ none ~ true }}", "{{ 'é中🚀'|length }}{{ 'é中🚀'[1] }}{{ 'é中🚀'[::-1] }}{{ 'abcdef'[1:-1:2] }}",
    "{{ [1, 2, 3][-1] }}{{ [1, 2, 3][::-1] }}{{ (1, 'x', none) | list }}{{ {'a': 1, 'b': [true, 2.5]} }}",
    "{{ 'it\\'s' }}{{ \"q\\\"\\n\" }}{{ 'a\\tb' }}", "{{ ['it\\'s', \"q\"] }}",
    "{% if x %}a{% elif 1 %}b{% else %}c{% endif %}", "{% if not x is defined %}u{% endif %}",
    "{% if 'a' in 'cat' and 'z' not in 'cat' %}yes{% endif %}", "{{ 1 < 2 < 3 }}{{ 1 < 2 > 3 }}{{ 'a' == 'a' != 'b' }}",
    "{{ 'a' if 1 else 'b' }}{{ 'a' if 0 }}|{{ 'a' if 0 else 'b' if 0 else 'c' }}",
    "{% for i in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}"
    "{{ loop.revindex }};{% endfor %}",
    "{% for i in [1, 2, 3] if i != 2 %}{{ i }}{{ loop.last }}{% else %}none{% endfor %}",
    "{% for i in [] %}x{% else %}empty{% endfor %}", "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in {'a': 1} %}{{ k }}{% endfor %}{% for c in 'añ' %}<{{ c }}>{% endfor %}{% for c in x %}never{% endfor %}",
    "{% set a = 1 %}{% for i in [1] %}{% set a = 2 %}{{ a }}{% endfor %}{{ a }}",
    "{% set a = 1 %}{% if true %}{% set a = 2 %}{% endif %}{{ a }}",
    "{% set ns = namespace(n=0, f=false) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}{{ ns.f }}{{ ns.zzz }}",
    "{% set a, b = 1, 'two' %}{{ b }}{{ a }}{% set c %}cap{{ a }}{% endset %}[{{ c }}]",
    "{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{{ range(2, 10, 3)|list }}{{ range(3, 0, -1)|list }}",
    "  {% if true %}  \n  x\n  {% endif %}\n y", "a\n  {%- if true -%}  \n  x  {%- endif %}\n b\n", "a {{- ' b ' -}} c",
    "a\n  {# comment #}\n  b {#- c -#} d", "{%+ if true %}x{% endif +%}\ny", "  {%+ if true %}x{% endif %}\n\ny\n\n",
    "{% raw %}{{ not }} {% these %}{% endraw %}!", "{{ '}}' }}{{ {'a': {'b': 1}}['a']['b'] }}{{ '%}' }}",
    "{{ x is defined }}{{ x is undefined }}{{ none is none }}{{ 'a' is string }}{{ 1 is number }}{{ true is boolean }}"
    "{{ [] is iterable }}{{ {} is mapping }}{{ [] is sequence }}{{ 1 is integer }}{{ 1.5 is float }}{{ 3 is odd }}{{ 4 is even }}",
    "{{ 6 is divisibleby 3 }}{{ 6 is divisibleby(4) }}{{ 1 is not none }}{{ 'a' is eq 'a' }}{{ 1 is in [1, 2] }}",
    "{{ not true is false }}{{ not 'a' in 'abc' }}{{ 1 + 1 is string }}",
    "{{ '  a b  '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ '\u3000a\u00a0'.strip() }}",
    "{{ 'a,b,c'.split(',') }}{{ 'a,b,c'.split(',', 1)[1] }}{{ ' a  b '.split() }}{{ 'a</t>b'.split('</t>')[-1] }}{{ 'a,b,c'.rsplit(',', 1) }}",
    "{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'bc')) }}{{ 'abc'.find('c') }}{{ 'abcabc'.replace('b', 'X') }}{{ 'aaa'.replace('a', 'b', 2) }}",
    "{{ 'aBc dE'.upper() }}{{ 'aBc dE'.lower() }}{{ 'aBc dE'.title() }}{{ 'aBc dE'.capitalize() }}{{ 'Éa'|upper|lower }}",
    "{{ {'b': 1, 'a': [1.5, none, true, 'é\"\\n\\u0001']} | tojson }}", "{{ {'b': 1, 'a': [1, {}, [], {'c': 2}]} | tojson(indent=2) }}",
    "{{ '<&>' | tojson }}{{ 'a' + {'k': 1} | tojson + 'b' }}", "{{ [1e16, 1e15, 0.0001, 0.00001, 123456.789, 1e22, 5e-324] | tojson }}",
    "{{ x | default('d') }}{{ '' | default('d') }}{{ '' | default('d', true) }}{{ none | default('d') }}{{ x | d('e') }}",
    "{{ [1, 2, 3] | join(', ') }}{{ ['a', 'b'] | join }}{{ [{'n': 1}, {'n': 2}] | map(attribute='n') | join('-') }}",
    "{{ [{'r': 'a', 'v': 1}, {'r': 'b', 'v': 2}] | selectattr('r', 'equalto', 'a') | list }}"
    "{{ [{'r': 'a'}, {'q': 'b'}] | rejectattr('r', 'defined') | list }}{{ [0, 1, 2] | select | list }}{{ [1, 2, 3] | reject('odd') | list }}",
    "{{ [1, 2] | first }}{{ [1, 2] | last }}{{ [3, 1] | length }}{{ {'a': 1} | length }}{{ x | length }}{{ 'ab' | reverse }}{{ [1, 2] | reverse | list }}",
    "{{ '5' | int + 1 }}{{ 'x' | int }}{{ 3.9 | int }}{{ 5 | string + '1' }}{{ ' a ' | trim }}{{ {'a': 1} | items | list | length }}",
    "{{ 'a\nb\n\nc' | indent(2) }}|{{ 'a\nb' | indent(2, true) }}", "{{ ['a', 'B'] | map('upper') | list }}",
    "{% macro m(a, b=2) %}<{{ a }}{{ b }}>{% endmacro %}{{ m(1) }}{{ m(1, b=3) }}{{ m('x', 'y') | upper }}",
    "{{ {'items': 1}['items'] }}{{ {'k': 5}.k }}{{ {'k': 5}.get('z') }}{{ {'k': 5}.get('z', 9) }}{{ {'k': 5}.zz is defined }}{{ {'a': 1}.keys() | list }}{{ {'a': 1}.values() | list }}",
    "{{ [1] + [2] }}{{ 'ab' * 3 }}{{ [1, 2] == [1, 2] }}{{ {'a': 1} == {'a': 1.0} }}{{ 1 == true }}{{ none == false }}{{ x == none }}",
    "{{ 1 if x }}{{ x or 'alt' }}{{ 'a' and 'b' }}{{ 0 or none }}{{ '' or [] }}", "{{ (1 + 2) * 3 }}{{ -(1) }}{{ - 2 ** 2 }}{{ +3 }}{{ 10_000 }}",
    "{{ messages[0]['role'] }}{{ messages[-1].content }}{{ messages[5] is defined }}{{ messages | length }}",
    "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined }}>{{ m.role }}{{ loop.nextitem is defined }};{% endfor %}",
    "{% for m in messages[1:] %}{{ m['content'] | trim }}{% endfor %}{{ messages[0]['nope'] is none }}",
    "{{ dict(a=1, b='x') }}{{ 'a' 'b' }}{{ [1, 2,] }}{{ {'a': 1,} }}", "{% if (messages | selectattr('role', 'equalto', 'user') | list) %}u{% endif %}",
    "{% generation %}x{% endgeneration %}", "{{ 'x' in ['x'] }}{{ 'x' in {'x': 1} }}{{ 2 not in [1] }}{{ 'a' < 'b' }}{{ 2 >= 2.0 }}",
    # Errors: the reason is ours, that there is one is Python's.
    "{{ x.y }}", "{{ x + 'a' }}", "{{ none + 'a' }}", "{{ 'a' + 1 }}", "{{ raise_exception('no system role') }}", "{{ x() }}", "{{ 'a'.nope() }}",
    "{% if %}", "{{ 1 + }}", "{% for x %}", "{{ 'a", "{% if 1 %}", "{{ 1 | nosuch }}", "{{ 1 is nosuch }}", "{% nosuch %}", "{{ 1 // 0 }}",
    "{% for i in 5 %}{% endfor %}", "{{ 1 in 'a' }}", "{% set x.y = 1 %}", "{{ 'a' < 1 }}", "{{ none | length }}", "{{ (1 }}", "{# open",
]
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi 中 "}, {"role": "assistant", "content": None}]


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


def main():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation])
    env.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
    env.globals["raise_exception"] = raise_exception
    root = pathlib.Path(__file__).resolve().parents[1]
    with open(root / "data/chat/vectors.jsonl", "w", encoding="utf-8") as out:
        for source in SNIPPETS:
            row = {"source": source, "messages": MESSAGES}
            try:
                row["text"] = env.from_string(source).render(messages=MESSAGES)
            except Exception as error:  # Whatever Python raises, ours must be an error too.
                row["error"] = type(error).__name__
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
