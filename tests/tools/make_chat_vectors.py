#!/usr/bin/env python3
"""Writes tests/data/chat/vectors.jsonl: template snippets with the results of Python's Jinja.

The environment is the one chat templates are written for: sandboxed, trim_blocks, lstrip_blocks, loop controls, tojson as
json.dumps. Run after changing SNIPPETS: python3 tests/tools/make_chat_vectors.py (needs the jinja2 package).
"""
import datetime
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
    # Signatures of filters and what tojson honours.
    "{{ {'b': {'d': 1, 'c': 'é'}, 'a': [1, 2]} | tojson(sort_keys=true) }}", "{{ {'a': [1, 2], 'é': 'ü🚀\\x7f'} | tojson(true) }}",
    "{{ {'a': [1, {'b': 2}], 'c': {}} | tojson(separators=(',', ':')) }}", "{{ {'a': [1, 2]} | tojson(indent=1, separators=[' , ', '=']) }}",
    "{{ {'a': [1, 2]} | tojson(indent='--') }}", "{{ {'a': [1, 2]} | tojson(indent=0) }}", "{{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }}",
    "{{ {1: 'a', 2: 'b'} }}{{ {1: 'a'}[1] }}{{ {1: 'a'}[1.0] }}{{ {'a': 1, 'a': 2, 'b': 3} }}{{ {1: 'x', true: 'y'} }}{{ {(1, 2): 3}[(1, 2)] }}",
    "{{ 1 in {1: 2} }}{{ '1' in {1: 2} }}{{ {'a': 1}.get(1, 'no') }}{% for k, v in {2: 'b', 1: 'a'}.items() %}{{ k }}{{ v }}{% endfor %}",
    "{{ (1, 2) }}{{ (1,) }}{{ () }}{{ 1, 'a' }}{{ [(1, 2), [3]] }}{{ (1, 2) == [1, 2] }}{{ (1, 2) == (1, 2) }}{{ (1, 2) + (3,) }}{{ (1, 2)[0] }}{{ (1, 2, 3)[1:] }}",
    "{{ (1, 2) | tojson }}{{ (1, 2) | list }}{{ {'a': 1}.items() | list }}{{ {'a': 1} | items | list }}{{ (2, 1) < (2, 3) }}{{ [1] < [1, 0] }}",
    "{{ {'b': 2, 'A': 1, 'c': 0} | dictsort }}{{ {'b': 2, 'A': 1} | dictsort(true) }}{{ {'b': 2, 'A': 3} | dictsort(by='value') }}"
    "{{ {'b': 2, 'A': 3} | dictsort(false, 'key', true) }}{% for k, v in {'z': 1, 'y': 2} | dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{{ [3, 1, 2] | sort }}{{ ['b', 'A', 'a'] | sort }}{{ ['b', 'A', 'a'] | sort(case_sensitive=true) }}{{ [3, 1, 2] | sort(reverse=true) }}"
    "{{ [{'n': 2, 'm': 'b'}, {'n': 2, 'm': 'a'}, {'n': 1, 'm': 'c'}] | sort(attribute='n,m') | map(attribute='m') | join }}",
    "{{ ['a', 'A', 'b', 'a'] | unique | list }}{{ [1, 1.0, true, 2] | unique | list }}{{ ['a', 'A'] | unique(true) | list }}{{ [{'k': 1}, {'k': 1}] | unique(attribute='k') | list }}",
    "{{ [1, 2.5] | sum }}{{ [] | sum }}{{ [1, 2] | sum(start=10) }}{{ [{'v': 1}, {'v': 4}] | sum('v') }}{{ [[1], [2]] | sum(start=[]) }}",
    "{{ [3, 1, 2] | min }}{{ [3, 1, 2] | max }}{{ ['b', 'A'] | min }}{{ ['b', 'A'] | max(true) }}|{{ [] | min }}|{{ [{'v': 3}, {'v': 9}] | max(attribute='v') }}",
    "{{ -3 | abs }}{{ -3.5 | abs }}{{ true | abs }}{{ 2.5 | round }}{{ 3.5 | round }}{{ 2.675 | round(2) }}{{ 7 | round }}{{ 1234 | round(-2) }}{{ 1250 | round(-2) }}{{ 2.1 | round(0, 'ceil') }}"
    "{{ -2.1 | round(method='floor') }}{{ 2.45 | round(1, 'floor') }}{{ -0.4 | round }}",
    "{{ '3.7' | float }}{{ 'x' | float }}{{ 'x' | float(1.5) }}{{ ' 1_0.5e1 ' | float }}{{ 3 | float }}{{ 'inf' | float }}{{ '-nan' | float }}{{ '1e' | float }}{{ '.5' | float }}{{ '5.' | float }}{{ none | float }}",
    "{{ ' 12 ' | int }}{{ '3.7' | int }}{{ '-3.7' | int }}{{ '+5' | int }}{{ '1_000' | int }}{{ '1__0' | int }}{{ '0x1F' | int(base=16) }}{{ '0x1F' | int(0, 0) }}{{ '1f' | int(base=16) }}{{ 'z' | int(-1) }}"
    "{{ none | int }}{{ [] | int(7) }}{{ true | int }}{{ 'inf' | int(4) }}{{ 1e20 | int }}{{ '99999999999999999999' | int }}{{ '010' | int }}{{ '0b11' | int(0, 2) }}{{ '' | int(5) }}",
    "{{ 'a b, c_d é1-2' | wordcount }}{{ '' | wordcount }}{{ '%s-%s' | format('a', 1) }}{{ '%05d|%-5s|%5.2f|%x|%X|%#o|%e|%g|%%|%c|%+d|% d|%r|%.2s' | format(42, 'ab', 3.14159, 255, 255, 8, 12345.678, 0.00001, 'q', 3, 4, 'x', 'xyz') }}",
    "{{ '%(a)s=%(b)03d' | format(a='x', b=7) }}{{ '%s' % 'x' }}{{ '%s %s' % (1, [2]) }}{{ '%(k)s' % {'k': 1} }}{{ '%*d' % (5, 42) }}{{ '%d' % 3.9 }}{{ '%s' % none }}{{ '%5s|%-5s|' % ('é', 'é') }}{{ '%i%%' % true }}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% set a = 9 %}{{ a }}{% endwith %}{{ a }}{% with %}x{% endwith %}",
    "{% filter upper %}a{{ 'b' }}{% if 1 %}c{% endif %}{% endfilter %}{% filter trim | replace('a', 'x') | indent(2) %} a\nb {% endfilter %}",
    "{% set x | trim | upper %}  hi {{ 1 }} {% endset %}[{{ x }}]{% set y %}{% set z = 1 %}{{ z }}{% endset %}{{ y }}{{ z is defined }}",
    "{% macro box(t) %}[{{ t }}:{{ caller() }}]{% endmacro %}{% call box('x') %}body{{ 1 }}{% endcall %}"
    "{% macro each(l) %}{% for i in l %}{{ caller(i, loop.index) }};{% endfor %}{% endmacro %}{% call(a, b=0) each([7, 8]) %}{{ a }}-{{ b }}{% endcall %}",
    "{% for i in range(5) %}{{ loop.cycle('a', 'b', 'c') }}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}",
    "{{ 1 is lt 2 }}{{ 2 is gt 3 }}{{ 2 is ge 2 }}{{ 2 is le 1 }}{{ 1 is ne 2 }}{{ 1 is lessthan 2 }}{{ 3 is greaterthan(2) }}{{ [1, 5, 3] | select('>', 2) | list }}{{ [1, 5, 3] | reject('ge', 3) | list }}"
    "{{ [1, 2] | select('==', 1) | list }}{{ [{'n': 1}, {'n': 5}] | selectattr('n', 'lt', 3) | list }}{{ 'a' is lower }}{{ 'A1' is upper }}{{ '1' is lower }}{{ 'upper' is filter }}{{ 'nope' is filter }}{{ 'odd' is test }}"
    "{{ none is sameas none }}{{ 1 is sameas true }}{{ 'x' is escaped }}{{ 3.0 is odd }}{{ 4.5 is even }}{{ 6 is divisibleby(-1) }}",
    "{{ 'abcabc'.removeprefix('abc') }}{{ 'abc'.removeprefix('x') }}{{ 'abcabc'.removesuffix('bc') }}{{ 'a\nb\r\nc\x0bd\u2028e\n'.splitlines() }}{{ 'a\nb'.splitlines(true) }}{{ ''.splitlines() }}{{ 'a\n\nb'.splitlines(keepends=true) }}",
    "{{ '12'.isdigit() }}{{ '1a'.isdigit() }}{{ ''.isdigit() }}{{ '²'.isdigit() }}{{ '½'.isnumeric() }}{{ 'é'.isalpha() }}{{ 'é1'.isalnum() }}{{ ' \t'.isspace() }}{{ 'ab1'.islower() }}{{ 'AB'.isupper() }}{{ '1'.isupper() }}{{ '٣'.isdecimal() }}",
    "{{ 'a b  c '.rsplit() }}{{ ' a b  c '.rsplit(none, 1) }}{{ 'a,b,c'.rsplit(',') }}{{ 'a,b,c'.rsplit(sep=',', maxsplit=1) }}{{ '  a b '.rsplit(none, 0) }}{{ 'a b c'.split(none, 1) }}{{ 'a b c'.split(maxsplit=1) }}{{ ' a b '.split(none, 0) }}",
    "{{ 'abcabc'.find('c', 3) }}{{ 'abcabc'.find('c', -2) }}{{ 'abcabc'.find('a', 1, 3) }}{{ 'abc'.find('', 3) }}{{ 'abc'.find('', 4) }}{{ 'abcabc'.rfind('b') }}{{ 'éaé'.index('é', 1) }}{{ 'aXbX'.rindex('X') }}{{ 'aaaa'.count('aa') }}{{ 'abc'.count('') }}{{ 'abab'.count('a', 1) }}",
    "{{ 'abc'.startswith('b', 1) }}{{ 'abc'.endswith('b', 0, 2) }}{{ 'abc'.startswith(('x', 'a')) }}{{ 'abc'.startswith('', 3) }}{{ 'abc'.startswith('', 4) }}{{ 'a-b-c'.partition('-') }}{{ 'a-b-c'.rpartition('-') }}{{ 'abc'.partition('x') }}{{ 'abc'.rpartition('x') }}",
    "{{ ', '.join(['a', 'b']) }}{{ '-'.join('xyz') }}{{ 'ab'.center(7, '*') }}{{ 'abc'.center(6) }}|{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3, '.') }}{{ '-7'.zfill(4) }}{{ '7'.zfill(3) }}{{ 'aBc'.swapcase() }}{{ 'ab' | center(5) }}|",
    "{{ 'straße ŉ ﬁ ΐ'.upper() }}{{ 'ß ﬂo ǆ'.title() }}{{ 'ßx ÉA'.capitalize() }}{{ 'ΑΣ ΣΑΣ. Σ'.lower() }}{{ 'İ'.lower() }}{{ 'ǅ'.swapcase() }}{{ \"it's a dog-days (x) o'neil\".title() }}{{ \"it's a dog-days (x) o'neil ßa\" | title }}",
    "{{ 'aaa'.replace('', '-') }}{{ 'aaa'.replace('', '-', 2) }}{{ 'abc' | replace('b', 1) }}{{ 121 | replace(1, 'x', 1) }}{{ 'a' | replace('a', 'b', none) }}{{ ''.replace('', 'x') }}",
    "{{ '\\x41\\u00e9\\U0001F680\\101\\0\\q' }}{{ '\\x7f' | tojson }}{{ 'a\\\nb' }}{{ 0x1f }}{{ 0b101 }}{{ 0o17 }}{{ 1_000.5 }}{{ 1e3 }}{{ 00 }}",
    "{{ ['\u200b\u00a0\x85é', '\x7f\x01'] }}{{ ['\U0001F680', '\ue000'] }}{{ 5 is string }}{{ {'a': none}.a is none }}",
    "{{ 3 * 'ab' }}{{ [1] * 3 }}{{ 2 * (1, 2) }}{{ [1] + [2] * 2 }}{{ 7.5 // 2 }}{{ -7.5 % 2 }}{{ 7.5 % -2 }}{{ -1 // 0.3 }}{{ 2 ** -1 }}{{ 2 ** 0.5 }}{{ -7 % -1 }}{{ 0.1 + 0.2 }}",
    "{% macro m() %}{{ y }}{% endmacro %}{% set y = 1 %}{{ m() }}{% set y = 2 %}{{ m() }}{% for y in [3] %}{{ m() }}{% endfor %}{% with y = 4 %}{{ m() }}{% endwith %}",
    "{% for i in [1, 2] %}{% macro m() %}<{{ i }}>{% endmacro %}{{ m() }}{% endfor %}{{ m is defined }}{% if true %}{% macro n(a=i) %}{{ a }}{% endmacro %}{% endif %}{{ n(5) }}{{ n() }}",
    "{% macro m(a, b=a, c='z') %}{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }}{{ m(1, 2, 3, 4, 5) }}{{ m(1, k=6) }}{{ m() }}{{ m(x, x) }}",
    "{% macro a() %}{% set q = 1 %}{{ q }}{% endmacro %}{{ a() }}{{ q is defined }}{% macro r(n) %}{{ n }}{% if n %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(3) }}",
    "{% for i in [] %}{% else %}{% set q = 1 %}{{ q }}{% endfor %}{{ q is defined }}{% for i in [1, 2] %}{% if loop.first %}{% set w = i %}{% endif %}{{ w }}|{% endfor %}",
    "{% generation %}{% set g = 1 %}{{ g }}{% endgeneration %}{{ g is defined }}", "{{ namespace({'a': 1}, b=2).a }}{{ dict([('a', 1), ('b', 2)], c=3) }}{{ dict({'x': 1}) }}",
    "\x0b  {% if true %}\xa0x{% endif %}\u3000{%- if true -%}\u2003 y {% endif %}", "{% raw %}\n  a\n  {% endraw %}\nb{% raw -%} \n c {%- endraw %}  d", "a\n\t {% set x = 1 %}\n  b{# c +#}\nd",
    "{{ [1, 2, 3, 4, 5] | batch(2) | list }}{{ [1, 2, 3] | batch(2, 'x') | list }}{{ {'a': {'b': [5, 6]}} | attr('items') is callable }}{{ [{'a': {'b': [5, 6]}}] | map(attribute='a.b.1') | list }}{{ [{}, {'a': 1}] | map(attribute='a', default='z') | list }}",
    "{{ [1, 2, 1].count(1) }}{{ [1, 2].index(2) }}{{ 'b' | default(default_value='q') }}{{ x | default('q', boolean=true) }}{{ ['a'] | join(d='-') }}{{ ['b'] | map('replace', 'b', 'c') | first }}{{ [1, 2] | map('string') | map('upper') | list }}",
    "{{ 'a\r\nb\n' | indent }}|{{ 'a\nb' | indent('>', first=true, blank=true) }}|{{ '' | indent(2, true) }}|{{ 'a\n\nb' | indent(width=1, blank=true) }}",
    # Errors: Python decides whether there is one; the text is ours.
    "{{ x.y }}", "{{ x + 'a' }}", "{{ none + 'a' }}", "{{ 'a' + 1 }}", "{{ raise_exception('no system role') }}", "{{ x() }}", "{{ 'a'.nope() }}",
    "{% if %}", "{{ 1 + }}", "{% for x %}", "{{ 'a", "{% if 1 %}", "{{ 1 | nosuch }}", "{{ 1 is nosuch }}", "{% nosuch %}", "{{ 1 // 0 }}",
    "{% for i in 5 %}{% endfor %}", "{{ 1 in 'a' }}", "{% set x.y = 1 %}", "{{ 'a' < 1 }}", "{{ none | length }}", "{{ (1 }}", "{# open",
    "{{ 'a' | upper(1) }}", "{{ 'a' | replace('a') }}", "{{ 1 | tojson(sort=true) }}", "{{ 'a'.strip(chars='a') }}", "{{ 'a'.startswith() }}", "{{ range() }}", "{{ range(1, 2, 3, 4) }}",
    "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", "{% macro m(a) %}{% endmacro %}{{ m(1, a=1) }}", "{% macro m() %}{% endmacro %}{% call m() %}x{% endcall %}",
    "{{ 1 is divisibleby }}", "{{ 1 is odd(2) }}", "{{ [1].append(2) }}", "{{ {'a': 1}.pop('a') }}", "{{ {[1]: 2} }}", "{{ 'abc'.index('x') }}", "{{ '%d' % 'x' }}", "{{ '%s' % (1, 2) }}", "{{ '%s %s' % 1 }}",
    "{{ x | int }}", "{{ x | float }}", "{{ 'a' | abs }}", "{{ 1 + none }}", "{{ [1, 'a'] | sort }}", "{{ [none, 1] | min }}", "{{ [1] + (2,) }}", "{{ {'a': 1, 2: 3} | dictsort }}", "{{ 1e400 | int }}", "{{ 0 ** -1 }}", "{{ {'a': 1} | tojson(indent=[]) }}",
    "{% break %}", "{% for i in [1] %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", "{{ strftime_now() }}", "{{ raise_exception() }}", "{{ '' | first | upper ~ x.y }}", "{{ [1] | map('nosuch') | list }}", "{{ [1] | select('nosuch') | list }}",
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


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    """A Jinja environment as transformers makes it for chat templates."""
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: datetime.datetime.now().strftime(format)
    return env


def main():
    env = environment()
    root = pathlib.Path(__file__).resolve().parents[1]
    with open(root / "data/chat/vectors.jsonl", "w", encoding="utf-8") as out:
        for source in SNIPPETS:
            row = {"source": source, "messages": MESSAGES}
            try:
                row["text"] = env.from_string(source).render(messages=MESSAGES)
            except Exception as error:  # For any exception of Python, our engine must give an error too.
                row["error"] = type(error).__name__
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
