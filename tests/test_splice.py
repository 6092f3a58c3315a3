"""What a person wrote stays: tables of examples, documents drawn at random, and whole sessions on such files."""

from __future__ import annotations

import copy
import io
import json
import logging
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from tools.edits import World, save_by_rename, save_in_place

from pstate import PersistedState
from pstate.errors import InvalidStateError
from pstate.file import format as f
from pstate.text import dumping, reading, splice, style
from pstate.text.canonical import is_canonical, literals
from pstate.text.places import applied
from pstate.values import same

#: Name, document, what happens to the state `s`, and the document that says so.
EXAMPLES = r"""
=== a comment after a value
a: 1  # one
b: 2
>>> s['a'] = 5
a: 5  # one
b: 2
=== comments above, below and after
# top

# a
a: 1 # one
# b
b: 2 # two

# end
>>> s['b'] = 'x'
# top

# a
a: 1 # one
# b
b: x # two

# end
=== blank lines
a: 1


b: 2

>>> s['a'] = None
a: null


b: 2

=== a deleted key takes its comments with it
# top

# a
# more
a: 1 # one
# b
b: 2
# end
>>> del s['a']
# top

# b
b: 2
# end
=== the last key deleted
a: 1
# b
b: 2 # two

# end
>>> del s['b']
a: 1

# end
=== a deleted block takes what is in it
a:
  # x
  x: 1 # one

  # tail
b: 2 # two
>>> del s['a']
b: 2 # two
=== a free comment stays when the key below is deleted
a: 1
# free

b: 2
c: 3
>>> del s['b']
a: 1
# free

c: 3
=== a new key after the last one
a: 1
b: 2 # two

# end
>>> s['c'] = 3
a: 1
b: 2 # two
c: 3

# end
=== a new key before a comment at the end
a: 1
# end
>>> s['b'] = 2
a: 1
b: 2
# end
=== a new key in a block
a:
  x: 1 # one
# about b
b: 2
>>> s['a']['y'] = 2
a:
  x: 1 # one
  "y": 2
# about b
b: 2
=== a new key before the tail of its block
a:
  x: 1

  # tail of a
b: 2
>>> s['a']['y'] = 2
a:
  x: 1
  "y": 2

  # tail of a
b: 2
=== a new key after a block whose tail stays in it
a:
  x: 1
  # tail of a
>>> s['b'] = 2
a:
  x: 1
  # tail of a
b: 2
=== a new block
a: 1 # one
>>> s['b'] = {'c': [1, {'d': 2}], 'e': {}}
a: 1 # one
b:
  c:
    - 1
    - d: 2
  e: {}
=== indented by four
a:
    b: 1 # c
>>> s['a']['c'] = {'d': {'e': 1}}; s['f'] = [1]
a:
    b: 1 # c
    c:
        d:
            e: 1
f:
    - 1
=== a list without indentation
a:
- 1 # one
- 2
b: 3 # three
>>> s['a'].append(9); s['a'][0] = 7
a:
- 7 # one
- 2
- 9
b: 3 # three
=== an element inserted
a:
  # one
  - 1
  # two
  - 2 # zwei
>>> s['a'].insert(1, 9)
a:
  # one
  - 1
  - 9
  # two
  - 2 # zwei
=== an element inserted at the front
a: # list
  # one
  - 1
>>> s['a'].insert(0, 9)
a: # list
  - 9
  # one
  - 1
=== an element deleted
a:
  # one
  - 1 # eins
  # two
  - 2 # zwei
  - 3 # drei
>>> del s['a'][0]
a:
  # two
  - 2 # zwei
  - 3 # drei
=== one deleted, another changed
a:
  - x: 1 # one
    n: 0
  - x: 2 # two
    n: 0
  - x: 3 # three
    n: 0
>>> del s['a'][0]; s['a'][0]['n'] = 5
a:
  - x: 2 # two
    n: 5
  - x: 3 # three
    n: 0
=== a list sorted
a:
  # three
  - 3 # drei
  - 1 # eins
  # two
  - 2
>>> s['a'].sort()
a:
  - 1 # eins
  # two
  - 2
  # three
  - 3 # drei
=== a key that moves to the end
# a
a: 1 # one
# b
b: 2
c: 3
# end
>>> s['a'] = s.pop('a')
# b
b: 2
c: 3
# a
a: 1 # one
# end
=== a moved block that changes
a:
  x: 1 # x
b: 2
>>> s['a'] = s.pop('a'); s['a']['x'] = 2
b: 2
a:
  x: 2 # x
=== an element that is a mapping loses its first key
a:
  - x: 1 # x
    # about y
    y: 2 # y
>>> del s['a'][0]['x']
a:
  - # about y
    y: 2 # y
=== a list in a list
a:
  - - 1 # one
    - 2
  - 3
>>> s['a'][0].insert(0, 0); s['a'][0].append(9)
a:
  - - 0
    - 1 # one
    - 2
    - 9
  - 3
=== quotes of a person's
a: 'x' # one
b: "y"
c: z
d: "\t"
>>> s.update(a="it's", b='w', c='no', d='plain')
a: 'it''s' # one
b: w
c: "no"
d: plain
=== a string that has become several lines
a: x # one
b: 2
>>> s['a'] = 'one\ntwo\n'
a: | # one
  one
  two
b: 2
=== a string of several lines
a: |  # lines
  one
  two

b: 2 # two
>>> s['a'] = 'one'
a: |-  # lines
  one

b: 2 # two
=== a string of several lines in another one
a: >-
  one
  two

# b
b: 2
>>> s['a'] = 'one\ntwo'
a: >-
  one

  two

# b
b: 2
=== a quoted text over lines
a: 'one
  two' # c
b: 2
>>> s['a'] = 'x'
a: 'x' # c
b: 2
=== a value becomes a block
a: 1  # one
b: 2
>>> s['a'] = {'x': 1}
a:  # one
  x: 1
b: 2
=== a block becomes a value
a:  # block
  x: 1
  y: 2
b: 2
>>> s['a'] = 1
a: 1  # block
b: 2
=== a block becomes empty
a:  # block
  x: 1
b: 2 # two
>>> s['a'].clear()
a: {}  # block
b: 2 # two
=== an empty list is filled
a: []  # jobs
b: 2
>>> s['a'].extend([1, {'x': 2}])
a:  # jobs
  - 1
  - x: 2
b: 2
=== null without a value
a:
b:  # to come
c: 1 # one
>>> s.update(a=1, b='x')
a: 1
b: x  # to come
c: 1 # one
=== a flow list
a: [1, 'two', "three"] # c
>>> s['a'][0] = 9; s['a'].append('four'); del s['a'][1]
a: [9, "three", four] # c
=== a flow mapping
a: { x: 1, y: 2 } # c
>>> s['a']['x'] = 'p q'; s['a']['z'] = [True, {'k': None}]
a: { x: p q, y: 2, z: [true, {k: null}] } # c
=== a flow list over lines, changed in place
a: [
  1, # one
  2, # two
]
>>> s['a'][1] = 5
a: [
  1, # one
  5, # two
]
=== a flow list over lines, with one more
a: [
  1,
  2,
] # c
>>> s['a'].append(3)
a: [
  1,
  2,
  3,
] # c
=== a flow list that has grown too long
a: [1, 2] # c
b: 2 # two
>>> s['a'].append('x' * 100)
a: # c
  - 1
  - 2
  - xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
b: 2 # two
=== flow in flow
a: {x: [1, {y: 2}], z: 3} # c
>>> s['a']['x'][1]['y'] = 5; s['a']['x'].insert(0, 'a, b')
a: {x: ["a, b", 1, {y: 5}], z: 3} # c
=== the root in flow
# top
{a: 1, b: 2} # c
>>> s['a'] = 3
# top
{a: 3, b: 2} # c
=== a document's own start and end
%YAML 1.1
--- # start
a: 1 # one
... # done
>>> s['b'] = 2
%YAML 1.1
--- # start
a: 1 # one
b: 2
# done
=== only comments
# nothing yet

# really
>>> s['a'] = 1
# nothing yet

# really
a: 1
=== a null document
# top
--- ~ # c
# end
>>> s['a'] = 1
# top
--- # c
a: 1
# end
=== an empty document is filled
# top

{} # c
# end
>>> s['a'] = {'b': 1}
# top

# c
a:
  b: 1
# end
=== all keys gone
# top

# a
a: 1 # one
b: 2

# end
>>> s.clear()
# top

# a
{}

# end
=== all keys others
# top

a: 1 # one

# end
>>> s.clear(); s['b'] = 1
# top

b: 1

# end
=== an alias to what stays
a: &x [1, 2] # x
b: *x # b
c: 3
>>> s['c'] = 4; s['d'] = 5
a: &x [1, 2] # x
b: *x # b
c: 4
d: 5
=== an alias to what changes
a: &x [1, 2] # x
b: *x # b
c: 3 # c
>>> s['a'].append(3)
a: &x [1, 2, 3] # x
b: # b
  - 1
  - 2
c: 3 # c
=== an alias whose anchor is deleted
a: &x {p: 1} # x
b: *x # b
c: *x # c
>>> del s['a']
b: # b
  p: 1
c: # c
  p: 1
=== an alias that is changed itself
a: &x {p: 1} # x
b: *x # b
c: 1 # c
>>> s['b']['p'] = 2
a: &x {p: 1} # x
b: # b
  p: 2
c: 1 # c
=== an alias to what changes, in a list that is equal
a: &x [1]
b:
  - *x # one
  - 2 # two
>>> s['a'].append(2)
a: &x [1, 2]
b:
  - - 1 # one
  - 2 # two
=== a string that would keep the blank lines below it
# top

a: |+
  x

b: 1

c: 2

# end
>>> del s['b']
# top

a: |+
  x

c: 2

# end
=== an own key beside a merge key is changed, another comes in
x: &ab {a: 1, b: 2}
c:
  # mine
  <<: *ab # merged
  d: 1 # one
>>> s['c']['d'] = 2; s['c']['e'] = 3
x: &ab {a: 1, b: 2}
c:
  # mine
  <<: *ab # merged
  d: 2 # one
  e: 3
=== an own key beside a merge key is deleted
x: &ab {a: 1, b: 2}
c:
  # mine
  <<: *ab
  d: 1 # one
  e: 2 # two
>>> del s['c']['d']
x: &ab {a: 1, b: 2}
c:
  # mine
  <<: *ab
  e: 2 # two
=== a merged key gets a value of its own
x: &ab {a: 1, b: 2}
c:
  <<: *ab # merged
  d: 1 # one
>>> s['c']['a'] = 5
x: &ab {a: 1, b: 2}
c:
  <<: *ab # merged
  d: 1 # one
  a: 5
=== an own key that is merged too is deleted, so the merge key must go
x: &ab {a: 1, b: 2}
c:
  # mine
  <<: *ab # merged
  b: 5 # five
  d: 1 # one
>>> del s['c']['b']
x: &ab {a: 1, b: 2}
c:
  # mine
  # merged
  a: 1
  d: 1 # one
=== an own key that is merged too is changed
x: &ab {a: 1, b: 2}
c:
  b: 5 # five
  <<: *ab # merged
  d: 1 # one
>>> s['c']['b'] = 2; s['c']['d'] = 3
x: &ab {a: 1, b: 2}
c:
  b: 2 # five
  <<: *ab # merged
  d: 3 # one
=== own keys are sorted around a merge key
x: &ab {a: 1, b: 2}
c:
  e: 1 # one
  <<: *ab # merged
  d: 2 # two
>>> s['c']['e'] = s['c'].pop('e')
x: &ab {a: 1, b: 2}
c:
  d: 2 # two
  <<: *ab # merged
  e: 1 # one
=== what is merged changes, and what merges it does not
x: &ab {a: 1, b: 2}
c:
  <<: *ab # merged
  d: 1 # one
>>> s['x']['a'] = 5
x: &ab {a: 5, b: 2}
c:
  <<: *ab # merged
  d: 1 # one
  a: 1
=== what is merged changes, and what merges it does too
x: &ab {a: 1, b: 2}
c:
  <<: *ab # merged
  d: 1 # one
>>> s['x']['a'] = s['c']['a'] = 5
x: &ab {a: 5, b: 2}
c:
  <<: *ab # merged
  d: 1 # one
=== what is merged gets a key that what merges it does not have
x: &ab {a: 1, b: 2}
c:
  # mine
  <<: *ab # merged
  d: 1 # one
>>> s['x']['c'] = 5
x: &ab {a: 1, b: 2, c: 5}
c:
  # mine
  # merged
  a: 1
  b: 2
  d: 1 # one
=== several are merged, after a dash, and one of them changes
x: &ab {a: 1, b: 2}
y: &c {c: 3}
l:
- <<: [*ab, *c] # merged
  d: 1 # one
>>> s['y']['c'] = 5
x: &ab {a: 1, b: 2}
y: &c {c: 5}
l:
- <<: [*ab, *c] # merged
  d: 1 # one
  c: 3
=== merged, in a flow mapping
x: &ab {a: 1, b: 2}
c: {<<: *ab, d: 1} # one
d: {<<: *ab, d: 1} # two
>>> s['c'].update(a=3, d=4, e=5); del s['d']['b']
x: &ab {a: 1, b: 2}
c: {<<: *ab, d: 4, e: 5, a: 3} # one
d: {a: 1, d: 1} # two
=== one key of an anchored block changes, and an alias with it, and another alias not
x: &ab # anchor
  a: 1 # one
  b: [1,  2] # two
y: [1,  2] # odd
c: *ab # alias
d:
  - *ab # element
  - 7 # seven
>>> s['x']['a'] = s['c']['a'] = 5
x: &ab # anchor
  a: 5 # one
  b: [1,  2] # two
y: [1,  2] # odd
c: *ab # alias
d:
  - a: 1 # element
    b:
      - 1
      - 2
  - 7 # seven
=== an anchored value changes, and an alias with it
a: &x 1 # one
b: *x # two
c: *x # three
>>> s['a'] = s['b'] = 'word'
a: &x word # one
b: *x # two
c: 1 # three
=== an anchored block becomes another kind, and an alias with it
l:
  - &x [1] # one
  - *x # two
>>> s['l'][:] = [{'p': 1, 'q': 2}, {'p': 1, 'q': 2}]
l:
  - &x # one
    p: 1
    q: 2
  - *x # two
=== an alias as a key
a: &x 1 # one
*x : 5 # key
b: 2 # two
>>> s[1] = 6; s['b'] = 3
a: &x 1 # one
*x : 6 # key
b: 3 # two
=== a literal with tabs, and blanks at ends of lines
a: |  # lines
    x\x09y
    z

b: 1 # one
>>> s['a'] = 'x\ty \n\n  zz\n'
a: |  # lines
    x\x09y\x20

      zz

b: 1 # one
=== a literal that begins with a tab, or blanks
a: |
    x
l:
- |
  y
>>> s['a'] = '\tx\n'; s['l'][0] = '\n  y\nz\n\n'
a: |4
    \x09x
l:
- |2+

    y
  z

=== a literal that cannot be one
a: | # lines
  x
b: |
  y
>>> s['a'] = 'x\x07\ny\n'; s['b'] = ''
a: "x\u0007\ny\n" # lines
b: ""
=== a literal in a document that is canonical otherwise
a: |
  x
b: 1
>>> s['a'] = 'echo 1 \necho 2'
a: |-
  echo 1\x20
  echo 2
b: 1
=== one of two literals that begin alike, in a document that is canonical otherwise
a:
  - b: |
      x
  - b: |
      z
>>> s['a'][1]['b'] = 'v\tw\n'
a:
  - b: |
      x
  - b: |
      v\x09w
=== a literal that is indented by four, in a document that is canonical otherwise
a: |
    x
    z
b: 1
>>> s['b'] = 2
a: |
    x
    z
b: 2
=== a literal with an indicator
a: |1-
   x
b: 1
>>> s['a'] = 'y\n'
a: |1
 y
b: 1
=== a folded text whose one word changes
a: >-  # folded
  one two three
  four five six
  seven eight

b: 1
>>> s['a'] = 'one two three four 5 six seven eight'
a: >-  # folded
  one two three
  four 5 six
  seven eight

b: 1
=== a folded text gets a paragraph, and lines that are not folded
a: >
  one
  two

  three
>>> s['a'] = 'one two\nthree\n\n  four\nfive  six\n'
a: >
  one
  two

  three

    four
  five  six
=== a folded text that becomes long
a: >-
  x
>>> s['a'] = 'word ' * 20 + 'end'
a: >-
  word word word word word word word word word word word word word word word
  word word word word word end
=== a folded text that cannot be folded
a: >-
  x
>>> s['a'] = 'a\x85b'
a: "a\u0085b"
=== dashes with three blanks
repos:
-   repo: x # one
    hooks:
    -   id: a
>>> s['repos'].append({'repo': 'z', 'hooks': [{'id': 'b', 'args': ['c', ['d']]}]})
repos:
-   repo: x # one
    hooks:
    -   id: a
-   repo: z
    hooks:
    -   id: b
        args:
        -   c
        -   -   d
=== lists at the column of their key
a:
- x # one
b: 1
>>> s['a'].append({'c': [1], 'd': {'e': [2]}}); s['f'] = [3]
a:
- x # one
- c:
  - 1
  d:
    e:
    - 2
b: 1
f:
- 3
=== mappings below their dash
a:
  -
    x: 1 # one
>>> s['a'].append({'x': 2, 'z': [1]})
a:
  -
    x: 1 # one
  -
    x: 2
    z:
      - 1
=== elements in quotes, keys in quotes, elements in flow style
a:
  - 'x' # one
  - 'z'
"b": # two
  "c": 1
  "on": 2
f:
  - {x: 1} # flow
  - {x: 2}
>>> s['a'].append('w'); s['b']['d'] = 3; s['f'].append({'x': 3})
a:
  - 'x' # one
  - 'z'
  - 'w'
"b": # two
  "c": 1
  "on": 2
  "d": 3
f:
  - {x: 1} # flow
  - {x: 2}
  - {x: 3}
=== JSON over lines
{
  "a": 1
}
>>> s['b'] = 2; s['c'] = {'d': ['no', None], 'e': {}}
{
  "a": 1,
  "b": 2,
  "c": {
    "d": [
      "no",
      null
    ],
    "e": {}
  }
}
=== JSON over lines, with lists in one line
{
    "a": [1, 2],
    "b": {
        "c": true
    }
}
>>> s['a'].append('x'); s['b']['d'] = [3]; del s['b']['c']; s['e'] = {'f': 1.5}
{
    "a": [1, 2, "x"],
    "b": {
        "d": [3]
    },
    "e": {
        "f": 1.5
    }
}
=== JSON in a line
{"a": 1}
>>> s['b'] = 2; s['a'] = 'word'
{"a": "word", "b": 2}
=== JSON in a line that becomes long, without blanks
{"a":1}
>>> s['b'] = ['x' * 60, {'k': 'y' * 60}]
{"a":1,"b":["xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",{"k":"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"}]}
=== all keys of JSON others
{
  "a": 1
}
>>> s.clear(); s['b'] = 'x'
{
  "b": "x"
}
=== JSON that becomes empty
{"a": 1}
>>> s.clear()
{}
=== a flow list over lines with comments
a: [ # list
  1, # one

  # free

  # two
  2, # zwei
  # three
  3 # drei
  # end
] # c
>>> del s['a'][1]; s['a'].append(4)
a: [ # list
  1, # one

  # free

  # three
  3, # drei
  4
  # end
] # c
=== a flow list over lines whose first element is beside the bracket
a: [1, # one
    2, # two
    3]
>>> s['a'].insert(0, 0); s['a'].append(4)
a: [
    0,
    1, # one
    2, # two
    3,
    4]
=== a flow list with several elements in a line
a: [1, 2, 3,
    4, 5, 6]
>>> s['a'].append(7); del s['a'][1]
a: [1, 3,
    4, 5, 6, 7]
=== commas at the beginning of lines
{
  "a": 1
  , "b": 2
}
>>> s['c'] = 3; del s['a']
{
  "b": 2
  , "c": 3
}
=== a list in an element gets one more, and the list of elements too
nav:
    - Home: index.md # home
    - Guide: # guide
        - a.md
        - b.md
>>> s['nav'][1]['Guide'].append('c.md'); s['nav'].append({'New': ['d.md']})
nav:
    - Home: index.md # home
    - Guide: # guide
        - a.md
        - b.md
        - c.md
    - New:
        - d.md
=== a folded text that was broken at column 50
a: >-
  In this text the lines were broken by somebody at
  the fiftieth column of the screen, by hand.
>>> s['a'] = s['a'].replace('somebody', 'somebody who had a screen')
a: >-
  In this text the lines were broken by somebody
  who had a screen at
  the fiftieth column of the screen, by hand.
=== quotes in flow
a: ["x", "w"] # one
b: {'k': 1} # two
c: ['x', 1]
>>> s['a'].append('z'); s['b']['l'] = 'm'; s['c'].append('q')
a: ["x", "w", "z"] # one
b: {'k': 1, 'l': 'm'} # two
c: ['x', 1, 'q']
=== a modeline stays when the first key goes
# yaml-language-server: $schema=./x.json
a: 1
b: 2
>>> del s['a']
# yaml-language-server: $schema=./x.json
b: 2
=== modelines stay at the top when the first key moves
#!/usr/bin/env thing
# -*- mode: yaml -*-
# vim: ft=yaml
# about a
a: 1
b: 2
>>> s['a'] = s.pop('a')
#!/usr/bin/env thing
# -*- mode: yaml -*-
# vim: ft=yaml
b: 2
# about a
a: 1
=== a modeline after the start of the document
---
# vim: set ft=ansible:
# about a
a: 1
b: 2
>>> del s['a']
---
# vim: set ft=ansible:
b: 2
=== a modeline above all keys, which go
# yaml-language-server: $schema=./x.json
a: 1
>>> s.clear(); s['b'] = 1
# yaml-language-server: $schema=./x.json
b: 1
=== merge keys that stay
a: &x
  p: 1 # p
b:
  <<: *x # merged
  q: 2 # q
c: 3
>>> s['c'] = 4
a: &x
  p: 1 # p
b:
  <<: *x # merged
  q: 2 # q
c: 4
=== a merging mapping that changes
a: &x
  p: 1 # p
b:
  <<: *x # merged
  q: 2 # q
c: 3 # c
>>> s['b']['q'] = 5
a: &x
  p: 1 # p
b:
  <<: *x # merged
  q: 5 # q
c: 3 # c
=== a tag
a: !!set {x, y} # set
b: !!str 5 # five
>>> s['a'].add('z'); s['b'] = '6'
a: !!set # set
  ? x
  ? "y"
  ? z
b: "6" # five
=== a set over lines
a: !!set # set
  ? x # x
  ? y
b: 1 # b
>>> s['b'] = 2
a: !!set # set
  ? x # x
  ? y
b: 2 # b
=== a key after a question mark
? a # key
: 1 # one
? b
: 2
c: 3 # three
>>> s['a'] = 5
? a # key
: 5 # one
? b
: 2
c: 3 # three
=== a new key where one is after a question mark
x:
  ? a # key
  : 1 # one
y: 2 # two
>>> s['x']['b'] = 5
x:
  a: 1
  b: 5
y: 2 # two
=== a deeper comment is not a part of a new text
a: 1
    # deeper
b: 2
>>> s['a'] = 'x\ny\n'
a: "x\ny\n"
    # deeper
b: 2
=== blank lines are not a part of a new text
a: 1

# b
b: 2
>>> s['a'] = 'x\n\n'
a: "x\n\n"

# b
b: 2
=== a list of mappings gets one more
jobs:
  # first
  - name: a  # A
    done: false

  # second
  - name: b  # B
    done: false

# end
>>> s['jobs'][0]['done'] = True; s['jobs'].append({'name': 'c', 'done': False})
jobs:
  # first
  - name: a  # A
    done: true

  # second
  - name: b  # B
    done: false
  - name: c
    done: false

# end
=== characters beyond the first plane
a: "😀" # 😀 é
b: 1 # one
>>> s['b'] = '🚀'
a: "😀" # 😀 é
b: "🚀" # one
=== a number becomes a truth value of the same worth
a: 1 # one
1: x # key
>>> s['a'] = True
a: true # one
1: x # key
"""

SPECIAL = [
    pytest.param(
        "# a\r\na: 1 # one\r\nb:\r\n  - x # x\r\n",
        "s['a'] = 2; s['b'].append('y'); s['c'] = 'p\\nq\\n'",
        '# a\r\na: 2 # one\r\nb:\r\n  - x # x\r\n  - "y"\r\nc: |\r\n  p\r\n  q\r\n',
        id="CRLF",
    ),
    pytest.param(
        "a: 1 # one\nb: 2\r\nc: 3 # three\n",
        "s['a'] = 2",
        "a: 2 # one\nb: 2\r\nc: 3 # three\n",
        id="CRLF in some lines",
    ),
    pytest.param("\ufeff# a\na: 1 # one\n", "s['a'] = 2", "\ufeff# a\na: 2 # one\n", id="a byte order mark"),
    pytest.param("a: 1 # one\nb: 2", "s['b'] = 3", "a: 1 # one\nb: 3\n", id="no newline at the end"),
    pytest.param("a: 1\n# end", "s['a'] = 2", "a: 2\n# end\n", id="a comment without newline at the end"),
    pytest.param(
        "b: 1\na: |+\n  x\n\nc:\n  - 1\n\nd: 2\n# c\n",
        "d = dict(c=s['c'], d=s['d'], b=s['b'], a=s['a']); s.clear(); s.update(d)",
        "c:\n  - 1\nd: 2\nb: 1\na: |+\n  x\n\n# c\n",
        id="a string that would take the blank lines of what has gone before it",
    ),
    pytest.param(
        "defaults: &d\n  wait: 1\nprod:\n  <<: *d\n  host: a  # h\nref: *d\n",
        "s['ref'] = {'wait': 5}",
        "defaults: &d\n  wait: 1\nprod:\n  <<: *d\n  host: a  # h\nref:\n  wait: 5\n",
        id="one alias that is written out, beside a merge key of the same anchor",
    ),
    pytest.param("# nothing yet", "", "# nothing yet\n{}\n", id="only comments, and still nothing"),
]


def examples() -> Iterator[Any]:
    for text in EXAMPLES.removesuffix("\n").split("\n=== ")[1:]:
        # Raw, so that there are backslashes in it; an editor would take blanks at ends of lines out.
        name, _, rest = text.replace("\\x20\n", " \n").replace("\\x09", "\t").partition("\n")
        document, _, rest = rest.partition(">>> ")
        change, _, expected = rest.partition("\n")
        yield pytest.param(document, change, expected + "\n", id=name)


def rewritten(document: str, state: dict[Any, Any]) -> str:
    data = document.encode()
    return splice.rewrite(data, state, lambda: dumping.dump(state), "state.yaml").decode()


def state_of(document: str) -> dict[Any, Any]:
    return reading.load(document.encode(), "state.yaml").value


@contextmanager
def no_warning() -> Iterator[None]:
    """Nothing was given up."""
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Handler()
    logger = logging.getLogger("pstate.text.splice")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert not found


@contextmanager
def at_first() -> Iterator[None]:
    """No warning, and no second try, in which all that changes below a key of the root is rewritten."""
    with no_warning(), patch.object(splice, "_spliced", wraps=splice._spliced) as spliced:
        yield
    assert not any(call.args[3] for call in spliced.call_args_list)


def in_order(value: Any) -> Any:
    """*value* as something that is equal only if the keys are in the same order, too."""
    if isinstance(value, dict):
        return [(key, in_order(item)) for key, item in value.items()]
    return list(map(in_order, value)) if isinstance(value, list) else value


def check(document: str, state: dict[Any, Any]) -> str:
    """Rewrite *document*: the result says *state*, to stock loaders too, and a journal can follow it."""
    with at_first():
        found = rewritten(document, state)
    base = reading.load(found.encode(), "state.yaml")
    assert same(state, base.value)
    assert in_order(state) == in_order(base.value)
    assert base.appendable
    assert f.scan(found.encode()).base == found.encode()
    assert same(state, yaml.safe_load(found))
    return found


# ------------------------------------------------------------------ examples


@pytest.mark.parametrize(("document", "change", "expected"), [*examples(), *SPECIAL])
def test_what_a_person_wrote_stays(document: str, change: str, expected: str) -> None:
    s = state_of(document)
    exec(change, {"s": s})
    assert expected == check(document, s)


@pytest.mark.parametrize(("document", "change", "expected"), [*examples(), *SPECIAL])
def test_a_document_that_says_the_state_is_left_alone(document: str, change: str, expected: str) -> None:
    assert expected == check(expected, state_of(expected))


# ------------------------------------------------------------------ lines of blanks, and scalars of several lines

HEAD = "# head\na: 1 # one\nb: 1\n"
LINES = [
    # A block of text would take the line of blanks for its own.
    (HEAD + "  \nd: 2 # two\n", "s['b'] = 'x\\n\\n'", 'b: 1\n->b: "x\\n\\n"\n'),
    (HEAD + "\nd: 2 # two\n", "s['b'] = 'x\\n\\n'", 'b: 1\n->b: "x\\n\\n"\n'),
    (HEAD + "      \nd: 2 # two\n", "s['b'] = 'x\\ny\\n'", 'b: 1\n->b: "x\\ny\\n"\n'),
    (HEAD + "      \nd: 2 # two\n", "s['b'] = ['x\\ny']", 'b: 1\n->b: ["x\\ny"]\n'),
    (HEAD + "c: 1\n      \nd: 2 # two\n", "s['b'] = 'x\\ny\\n'; del s['c']", 'b: 1\nc: 1\n->b: "x\\ny\\n"\n'),
    (HEAD + "c: 1\n  \nd: 2 # two\n", "s['b'] = 'x\\n\\n'; del s['c']", 'b: 1\nc: 1\n->b: "x\\n\\n"\n'),
    (HEAD + " \nd: 2 # two\n", "s['b'] = 'x\\ny\\n'", "b: 1\n->b: |\n  x\n  y\n"),
    # So would one of the person, as soon as what is between is gone.
    ("# h\na: |+\n  x\n\nb: 1 # one\n\nc: 2 # two\n", "del s['b']", "b: 1 # one\n\n->"),
    ("# h\na: | # x\n  x\nb: 1\n     \nc: 2 # two\n", "del s['b']", "b: 1\n     \n->"),
    ("# h\na: |+\n  x\n\nb: 1\n\n# c\nc: 1\nd: 2 # two\n", "del s['b'], s['c']", "b: 1\n\n# c\nc: 1\n->"),
    ("# h\na: |\n  x\nb: 1\n\n   # c\nd: 2 # two\n", "del s['b']", 'a: |\n  x\nb: 1\n\n->a: "x\\n"\n'),
    ("l:\n  - |+\n    x\n\n  - b # one\n \n  - c # two\n", "s['l'].remove('b')", "  - b # one\n \n->"),
    (
        "l:\n  - m: |\n      x\n  - b # one\n\n          \n  - c # two\n",
        "s['l'].remove('b')",
        "  - b # one\n\n          \n->",
    ),
    (
        "b: 1 # b\n# a\na: |+\n  x\n\nc: 2 # two\n\nd: 1\n",
        "s['a'] = s.pop('a')",
        '# a\na: |+\n  x\n\nc: 2 # two\n\nd: 1\n->c: 2 # two\n\nd: 1\n# a\na: "x\\n\\n"\n',
    ),
    # What is as it was stays in several lines.
    ("a: this is\n  a long\n  text\nb: 1\n", "s['b'] = 2", "b: 1->b: 2"),
    ("a:\n  - this is\n    a long\nb: 1\n", "s['b'] = 2", "b: 1->b: 2"),
    ("a:\n  - this is\n    - a long\n  - this is - a long\nb: 1\n", "s['b'] = 2", "b: 1->b: 2"),
    ("a: |\n    this is\n    a long\nb: 1\n", "s['b'] = 2", "b: 1->b: 2"),
    ("a: |\n  x\n  y\nb:\n  c: this is\n    a long\n", "s['a'] = 'x\\nz\\n'", "  y\n->  z\n"),
    ("a: !!set\n  ? z\n  ? x\nb: 1\n", "s['b'] = 2", "b: 1->b: 2"),
    ("a: |\n  x\n  # c\nb:\n  # c\n  d: 1\n", "s['b']['d'] = 2", "d: 1->d: 2"),
    ("a: \"this is\n  a long\"\nb: 'and\n\n  so'\nc: 1\n", "s['c'] = 2", "c: 1->c: 2"),
    ("a: >-\n  this is\n  a long\nc: [1,\n  2]\nb: 1\n", "s['b'] = 2", "b: 1->b: 2"),
    ("a: this is\n  a long\nb: 1\n", "s['a'] = 'short'", "a: this is\n  a long\n->a: short\n"),
    ("a: 'this is\n  a long' # c\nb: 1\n", "s['a'] = 'short'", "'this is\n  a long'->'short'"),
    # After a marker.
    ("# head\n---\n# one\na: 1 # two\nb: [1, 2]\n", "s['a'] = 2", "a: 1->a: 2"),
    ("---\na: 1 # two\nb: [1, 2]\n", "s['b'].append(3)", "1, 2->1, 2, 3"),
    ("---\na: 1 # two\nb: 2\n", "new = {'c': 1, **s}; s.clear(); s.update(new)", "---\n->---\nc: 1\n"),
    ("---\na: 1 # two\nb: 2\n", "del s['a']", "a: 1 # two\n->"),
]


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(("document", "change", "replaced"), LINES, ids=[ascii(text)[:40] for text, _, _ in LINES])
def test_only_what_says_something_else_is_replaced(document: str, change: str, replaced: str, newline: str) -> None:
    """Whether the reader was quick or not."""
    state = state_of(document)
    exec(change, {"s": state})
    old, new = replaced.split("->")
    expected = document.replace(old, new)
    assert expected != document
    for tail in ("", "z: &x 1\n"):  # the quick reader knows no anchors
        whole = {**state, "z": 1} if tail else state
        found = check((document + tail).replace("\n", newline), whole)
        assert (expected + tail).replace("\n", newline) == found


# ------------------------------------------------------------------ documents drawn at random

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]


class Writer:
    """A person's document, drawn: comments everywhere, all kinds of scalars, blocks and flows, in one of the styles."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.number = 0
        self.step = draw.choice([2, 2, 4])
        self.lists_step = 0 if draw.random() < 0.3 else self.step

    def document(self) -> str:
        return "\n".join(self.comments(0) + self.mapping(0, 0) + self.comments(0)) + "\n"

    def comment(self) -> str:
        self.number += 1
        return f"# c{self.number}."

    def comments(self, indent: int) -> list[str]:
        lines = []
        while self.draw.random() < 0.25:
            lines.append("" if self.draw.random() < 0.3 else " " * indent + self.comment())
        return lines

    def behind(self) -> str:
        return "  " + self.comment() if self.draw.random() < 0.3 else ""

    def mapping(self, indent: int, depth: int) -> list[str]:
        lines = []
        for key in self.draw.sample(WORDS, self.draw.randint(1, 4)):
            lines += self.comments(indent) + self.entry(" " * indent + key + ":", indent, depth, self.lists_step)
        return lines + self.comments(indent)

    def list(self, indent: int, depth: int) -> list[str]:
        lines = []
        for _ in range(self.draw.randint(1, 4)):
            lines += self.comments(indent)
            kind = self.draw.random()
            if depth < 3 and kind < 0.4:
                inner = (self.mapping if kind < 0.3 else self.list)(indent + 2, depth + 1)
                while not inner[0].strip() or inner[0].strip().startswith("#"):
                    del inner[0]
                lines += [" " * indent + "- " + inner[0][indent + 2 :], *inner[1:]]
            else:
                lines += self.entry(" " * indent + "-", indent, depth, self.step)
        return lines + self.comments(indent)

    def entry(self, head: str, indent: int, depth: int, lists_step: int) -> list[str]:
        kind = self.draw.random()
        if depth < 3 and kind < 0.25:
            return [head + self.behind(), *self.mapping(indent + self.step, depth + 1)]
        if depth < 3 and kind < 0.45:
            return [head + self.behind(), *self.list(indent + lists_step, depth + 1)]
        inner = " " * (indent + self.step)
        if self.draw.random() < 0.1:
            header = self.draw.choice(["|", "|-", "|+", ">", ">-"])
            return [f"{head} {header}{self.behind()}", inner + "line", "", inner + "two # no comment"]
        over_lines = f"[\n{inner}a, # in flow\n{inner}b ]"
        scalars = [
            "",
            " 7",
            " 'it''s'",
            ' "d\\tq"',
            " plain text",
            " [a, 'b', {c: 1, d: }]",
            " {x: 1, y: [1, 2]}",
            " ~",
        ]
        scalars += [
            " 1.5",
            " yes",
            " 2026-01-02",
            " []",
            " {}",
            " " + over_lines,
            " !!set {x}",
            " 'a\n\n" + inner + "b'",
            " plain text\n" + inner + "of two lines",
            ' "quoted\n' + inner + 'too"',
        ]
        return [head + self.draw.choice(scalars) + self.behind()]


VALUES: list[Any] = [
    1, -2.5, None, True, "word", "two words", "x\ny\n", "x\n\n", "with # hash", "", "it's", [1, "a"], [], {}, {"s"},
    {"k": 1, "l": {"m": [1]}}, [{"a": 1, "b": 2}], [[1], "x\ny"], b"bytes", "x" * 120,
]  # fmt: skip


def containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers(item)


def change(draw: random.Random, state: dict[Any, Any]) -> None:
    """One change somewhere in *state*."""
    where = draw.choice(list(containers(state)))
    value = copy.deepcopy(draw.choice(VALUES))
    kind = draw.randrange(6)
    if isinstance(where, list):
        if kind == 0 and where:
            where[draw.randrange(len(where))] = value
        elif kind == 1 and where:
            del where[draw.randrange(len(where))]
        elif kind == 2:
            draw.shuffle(where)
        elif kind == 3:
            where.reverse()
        else:
            where.insert(draw.randint(0, len(where)), value)
    elif kind < 2 or not where:
        where[draw.choice([*where, "new", "beta"])] = value
    elif kind == 2:
        del where[draw.choice(list(where))]
    elif kind == 3:
        key = draw.choice(list(where))
        where[key] = where.pop(key)
    elif kind == 4:
        pairs = list(where.items())
        draw.shuffle(pairs)
        where.clear()
        where.update(pairs)
    else:
        where[draw.choice(["new", "other"])] = value


draws = st.builds(random.Random, st.integers(0, 1 << 32))


@settings(max_examples=500)
@given(draws)
def test_any_document_says_any_state(draw: random.Random) -> None:
    """Without giving up the layout, and a second rewriting to the same state changes no byte."""
    document = Writer(draw).document()
    if draw.random() < 0.2:
        document = document.replace("\n", "\r\n")
    if draw.random() < 0.1:
        document = "\ufeff" + document
    state = state_of(document)
    if not is_canonical(document.encode(), dumping.dump(state)):
        assert document == check(document, state)
    for _ in range(draw.randint(1, 4)):
        change(draw, state)
    found = check(document, state)
    assert found == check(found, state)


@settings(max_examples=200)
@given(draws)
def test_of_a_canonical_document_becomes_a_canonical_one(draw: random.Random) -> None:
    """Also the long way, so that it does not matter who notices that a document is canonical."""
    state = state_of(Writer(draw).document())
    base = dumping.dump(state)
    for _ in range(draw.randint(1, 4)):
        change(draw, state)
    found = splice._spliced(base, state, "state.yaml")[0]
    if not literals(base) <= literals(dumping.dump(state)) or literals(found) - literals(dumping.dump(state)):
        return  # a literal stays one
    if base != b"{}\n" and b"|+" not in dumping.dump(state):  # beside blank lines, it is put in quotes
        assert dumping.dump(state) == found


@settings(max_examples=300)
@given(draws)
def test_a_document_with_a_style_of_its_own_is_not_taken_for_canonical(draw: random.Random) -> None:
    document = Writer(draw).document().encode()
    state = state_of(document.decode())
    if document != dumping.dump(state):
        for _ in range(draw.randint(0, 4)):
            change(draw, state)
        assert not is_canonical(document, dumping.dump(state))


@settings(max_examples=500)
@given(draws)
def test_what_is_read_in_pieces_is_what_the_whole_document_says(draw: random.Random) -> None:
    """Whatever the edits are, good or bad: the pieces say what the document says, or nothing."""
    pieces = ["\n", "  \n", "# c\n", "  # c\n", "a: 1\n", "  b: 2\n", "- 1\n", "{a: 1}\n", "k: |+\n  x\n\n", "_: 1\n",
              "'", '"', "...\n", "--- 1\n", "&x ", "*x", "? y\n", "k: [1,\n", " 2]\n", ": ", "x", "", "",
              'k: "x\n', 'y"\n', "k: {a: 1,\n", ", b: 2}\n", "  x\n", "---\n"]  # fmt: skip
    text = Writer(draw).document() if draw.random() < 0.5 else dumping.dump(state_of(Writer(draw).document())).decode()
    text = "---\n" * (draw.random() < 0.2) + text
    value, parts = reading.trace(text.encode(), "")
    known = splice._Splice(text, parts, set(), coarse=False)
    starts = [found.start() for found in re.finditer("(?m)^", text)]
    for _ in range(20):
        places = sorted(draw.choice([*starts, draw.randrange(len(text))]) for _ in range(2 * draw.randint(0, 3)))
        edits = [
            (start, start if draw.random() < 0.5 else end, draw.choice(pieces))
            for start, end in zip(places[::2], places[1::2], strict=True)
        ]
        found = splice._read_pieces(known, value, edits)
        if found is not None:
            whole = reading.load_events(applied(text, 0, len(text), edits).encode(), "").value
            assert same(whole, found)
            assert in_order(whole) == in_order(found)


@pytest.mark.parametrize(
    "edits",
    [
        [(3, 4, "{x: 1,"), (10, 14, ", y: 2}")],
        [(3, 4, '"x'), (10, 14, 'y"')],
        [(3, 4, "'x"), (10, 14, "y'")],
        [(3, 4, "[x,"), (10, 14, "y]")],
        [(0, 0, " 2]\n")],
        [(0, 0, "---\n")],
    ],
)
def test_a_piece_that_is_not_over_is_not_read_by_itself(edits: list[tuple[int, int, str]]) -> None:
    text = "a: 1\nb: 2\nc: 3\n"
    for head in ("", "---\n"):
        value, parts = reading.trace((head + text).encode(), "")
        known = splice._Splice(head + text, parts, set(), coarse=False)
        shift = len(head)
        assert splice._read_pieces(known, value, [(a + shift, b + shift, new) for a, b, new in edits]) is None


# ------------------------------------------------------------------ a model that knows the expected bytes


class Entry:
    """A key, or an element, as lines of a document. *free* is what is above it on its own."""

    def __init__(self, key: str, value: Any, free: list[str], above: list[str], behind: str) -> None:
        self.key = key
        self.value = value  #: text of a scalar, or a Block
        self.free = free
        self.above = above
        self.behind = behind


class Block:
    """A mapping, or a list of unique texts."""

    def __init__(self, entries: list[Entry], is_list: bool) -> None:
        self.entries = entries
        self.is_list = is_list
        self.tail: list[str] = []  #: at its end, on its own

    def lines(self, indent: str) -> list[str]:
        lines = []
        for entry in self.entries:
            lines += [text and indent + text for text in [*entry.free, *entry.above]]
            head = indent + ("-" if self.is_list else entry.key + ":")
            if isinstance(entry.value, Block):
                lines += [head + entry.behind, *entry.value.lines(indent + "  ")]
            else:
                lines.append(f"{head} {entry.value}{entry.behind}")
        return lines + [text and indent + text for text in self.tail]

    def delete(self, number: int) -> None:
        entry = self.entries.pop(number)
        behind = self.entries[number].free if number < len(self.entries) else self.tail
        behind[:0] = [*entry.free, *(entry.value.blank_end() if isinstance(entry.value, Block) else [])]

    def append(self, entry: Entry) -> None:
        last = self.entries[-1].value
        self.tail[:0] = last.blank_end() if isinstance(last, Block) else []
        self.entries.append(entry)

    def blank_end(self) -> list[str]:
        """Take out the blank lines at the end: they are just as good after the block."""
        blank = []
        while self.tail and not self.tail[-1]:
            blank.append(self.tail.pop())
        last = self.entries[-1].value
        return blank + (last.blank_end() if not self.tail and isinstance(last, Block) else [])


class Model:
    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.number = 0
        self.root = self.block(0, is_list=False)

    def comment(self) -> str:
        self.number += 1
        return f"# c{self.number}."

    def block(self, depth: int, is_list: bool) -> Block:
        entries = []
        for key in self.draw.sample(WORDS, self.draw.randint(1, 4)):
            value: Any = self.draw.choice(["1", "'quoted'", "plain"])
            if is_list:
                value = key
            elif depth < 3 and self.draw.random() < 0.4:
                value = self.block(depth + 1, self.draw.random() < 0.4)
            behind = "  " + self.comment() if self.draw.random() < 0.4 else ""
            free = ["", self.comment(), ""] if self.draw.random() < 0.2 else []
            above = [self.comment() for _ in range(self.draw.choice([0, 0, 1, 2]))]
            entries.append(Entry(key, value, free, above, behind))
        block = Block(entries, is_list)
        if self.draw.random() < 0.3:
            block.tail = ["", self.comment()]
        return block

    @property
    def text(self) -> str:
        return "\n".join(self.root.lines("")) + "\n"

    def change(self) -> None:
        blocks = [self.root]
        for block in blocks:
            blocks += [entry.value for entry in block.entries if isinstance(entry.value, Block)]
        block = self.draw.choice(blocks)
        kind = self.draw.randrange(3)
        number = self.draw.randrange(len(block.entries))
        entry = block.entries[number]
        if kind == 0 and len(block.entries) > 1:
            block.delete(number)
        elif kind == 1 and not isinstance(entry.value, Block) and not block.is_list:
            self.number += 1
            word = f"changed{self.number}"
            entry.value = f"'{word}'" if entry.value.startswith("'") else word
        else:
            self.number += 1
            entry = Entry(f"new{self.number}", f"value{self.number}", [], [], "")
            place = self.draw.randint(1, len(block.entries))
            if block.is_list and place < len(block.entries):
                block.entries.insert(place, entry)
            else:
                block.append(entry)


@settings(max_examples=500)
@given(draws)
def test_only_the_lines_of_what_changed_differ(draw: random.Random) -> None:
    """Changed values, deleted and new entries among comments: byte for byte what a careful person would have done."""
    model = Model(draw)
    before = model.text
    for _ in range(draw.randint(1, 3)):
        model.change()
        after = model.text
        assert after == check(before, state_of(after))
        before = after


# ------------------------------------------------------------------ beside ruamel.yaml


def comments(text: str) -> set[str]:
    return set(re.findall(r"# c[0-9]+\.", text))


@settings(max_examples=200)
@given(draws)
def test_no_comment_is_lost_that_ruamel_keeps(draw: random.Random) -> None:
    """It keeps the comments of what does not change, at least; the same values are set in its tree and in ours."""
    document = Writer(draw).document().replace("yes", "true")
    ruamel = YAML()
    theirs = ruamel.load(document)
    state = state_of(document)
    keys = [key for key, item in state.items() if not isinstance(item, dict | list)]  # a block goes with its comments
    key, value = draw.choice([*keys, "new"]), draw.choice([5, "word", True])
    state[key] = theirs[key] = value
    stream = io.StringIO()
    ruamel.dump(theirs, stream)
    assert comments(stream.getvalue()) <= comments(check(document, state))


# ------------------------------------------------------------------ the styles of others


class Reuser:
    """A person's document with anchors, aliases and merge keys everywhere, drawn, in one of the styles for lists."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.number = 0
        self.step = draw.choice([2, 2, 4])
        self.lists_step = draw.choice([0, self.step])
        self.gap = " " * draw.choice([1, 1, 3])
        self.mappings: list[str] = []  #: anchors that have been closed, of mappings and of all
        self.anchors: list[str] = []

    def document(self) -> str:
        lines = [line for n in range(self.draw.randint(2, 6)) for line in [*self.above(0), *self.entry(f"k{n}", 0, 0)]]
        return "\n".join(lines) + "\n"

    def above(self, column: int) -> list[str]:
        return [" " * column + self.comment()] if self.draw.random() < 0.2 else []

    def comment(self) -> str:
        self.number += 1
        return f"# c{self.number}."

    def behind(self) -> str:
        return "  " + self.comment() if self.draw.random() < 0.4 else ""

    def entry(self, key: str, column: int, depth: int) -> list[str]:
        head, lines = self.value(column, depth)
        return [" " * column + key + ":" + head, *lines]

    def value(self, column: int, depth: int) -> tuple[str, list[str]]:
        """What is after a colon, and the lines below."""
        draw, kind = self.draw, self.draw.random()
        if kind < 0.15 and self.anchors:
            return f" *{draw.choice(self.anchors)}{self.behind()}", []
        self.number += 1
        name = f"A{self.number}" if draw.random() < 0.35 else ""
        anchor = f" &{name}" if name else ""
        is_mapping = False
        lines: list[str] = []
        if kind < 0.45 and depth < 3:
            is_mapping = True
            head = self.behind()
            lines = self.mapping(column + self.step, depth + 1)
        elif kind < 0.6 and depth < 3:
            head = self.behind()
            lines = self.list(column + self.lists_step, depth + 1)
        elif kind < 0.7:
            is_mapping = True
            merge = f"<<: *{draw.choice(self.mappings)}, " if self.mappings and draw.random() < 0.5 else ""
            head = f" {{{merge}p: {draw.randint(1, 9)}, q: [1, 2]}}{self.behind()}"
        elif kind < 0.78:
            head = f" {draw.choice(['|', '|-', '>', '>-'])}{self.behind()}"
            lines = [" " * (column + self.step) + line for line in draw.choice([["one two", "three"], ["x ", "y\tz"]])]
        else:
            word = draw.choice(["1", "word", "two words", "~", "true", '"quoted"'])
            head = f" {word}{self.behind()}"
        if name:
            self.anchors.append(name)
            self.mappings += [name] if is_mapping else []
        return anchor + head, lines

    def mapping(self, column: int, depth: int) -> list[str]:
        draw, lines = self.draw, list[str]()
        keys = draw.sample(WORDS, draw.randint(1, 3))
        place = draw.randrange(2 * len(keys))
        for number, key in enumerate(keys):
            if number == place and self.mappings:
                names = ["*" + name for name in draw.sample(self.mappings, min(2, len(self.mappings)))]
                merged = draw.choice([names[0], f"[{', '.join(names)}]"])
                lines += [*self.above(column), f"{' ' * column}<<: {merged}{self.behind()}"]
            lines += [*self.above(column), *self.entry(key, column, depth)]
        return lines

    def list(self, column: int, depth: int) -> list[str]:
        lines = []
        for _ in range(self.draw.randint(1, 3)):
            lines += self.above(column)
            if self.draw.random() < 0.4:
                first = column + 1 + len(self.gap)
                inner = self.mapping(first, depth)
                while inner[0].lstrip().startswith("#"):
                    del inner[0]
                lines += [" " * column + "-" + self.gap + inner[0][first:], *inner[1:]]
            else:
                head, inner = self.value(column, 3)  # in one line, or a block of text
                lines += [" " * column + "-" + self.gap[1:] + head, *inner]
        return lines


def reused(draw: random.Random) -> tuple[str, dict[Any, Any]]:
    """A document of this kind that is one: some have aliases that could not be."""
    while True:
        document = Reuser(draw).document()
        with suppress(InvalidStateError):
            return document, state_of(document)


@settings(max_examples=500)
@given(draws)
def test_merge_keys_and_aliases_say_any_state(draw: random.Random) -> None:
    """Without giving up the layout, and a second rewriting to the same state changes no byte."""
    document, state = reused(draw)
    for _ in range(draw.randint(1, 4)):
        change(draw, state)
    with at_first():
        found = rewritten(document, state)
    assert in_order(state) == in_order(state_of(found))
    assert same(state, state_of(found))
    assert found == rewritten(found, state)


def of_merge_keys(document: str) -> set[str]:
    """The comments that belong to merge keys: they go if a merge key goes and no pair comes in its place."""
    return comments("".join(re.findall(r"(?m)(?:^ *#.*\n)*^[ -]*<<:.*", document)))


@settings(max_examples=500)
@given(draws)
def test_a_scalar_or_a_new_entry_costs_no_line_of_others(draw: random.Random) -> None:
    """In the document all comments stay, and all lines but that of the scalar and of aliases to what has changed."""
    document, state = reused(draw)
    where = draw.choice([container for container in containers(state) if container])
    value = draw.choice([7, "new", [1, {"k": "l"}], "x\ty\nz\n"])
    keys = list(where) if isinstance(where, dict) else list(range(len(where)))
    scalars = [key for key in keys if not isinstance(where[key], dict | list)]
    most = 0
    if scalars and draw.random() < 0.6:
        key = draw.choice(scalars)
        most = 1 + str(where[key]).count("\n") + 2
        where[key] = value
    elif isinstance(where, dict):
        where["added"] = value
    else:
        where.append(value)
    with at_first():
        found = rewritten(document, state)
    assert in_order(state) == in_order(state_of(found))
    assert comments(document) - of_merge_keys(document) <= comments(found)
    # They may have moved, and one may have come to follow a dash.
    before, after = (Counter([line.lstrip(" -") for line in text.splitlines()]) for text in (document, found))
    gone = before - after
    others = [line for line in gone if not {"*", "{", "["} & set(line) and line[:1] != "#"]
    assert len(others) <= most, others


@settings(max_examples=300)
@given(draws)
def test_json_stays_json(draw: random.Random) -> None:
    """As `json` writes it, in whatever layout: with the same lines, but for what has changed."""
    layout: Any = draw.choice([{"indent": 2}, {"indent": 4}, {}, {"separators": (",", ":")}])
    values = ["word", "no", 'quote " and \\ \t', 1, -2.5, None, True, [], {}, ["a", {"b": 1}], {"c": {"d": [1, 2]}}]

    def tree(depth: int) -> Any:
        kind = draw.random()
        if depth < 3 and (kind < 0.3 or not depth):
            return {key: tree(depth + 1) for key in draw.sample(WORDS, draw.randint(1, 3))}
        if depth < 3 and kind < 0.5:
            return [tree(depth + 1) for _ in range(draw.randint(1, 3))]
        return copy.deepcopy(draw.choice(values))

    document = json.dumps(tree(0), ensure_ascii=False, **layout) + "\n"
    state = state_of(document)
    where = draw.choice(list(containers(state)))
    value = copy.deepcopy(draw.choice(values))
    number = draw.randrange(3)
    if isinstance(where, list):
        where.append(value)
    elif number == 0 and where:
        del where[draw.choice(list(where))]
    else:
        where[draw.choice([*where, "new"])] = value
    found = check(document, state)
    assert in_order(state) == in_order(json.loads(found))
    if layout:  # between colon and comma, `json` writes in the same way, wherever a container is not new or emptied
        assert json.dumps(state, ensure_ascii=False, **layout).splitlines()[0] == found.splitlines()[0] or "{}" in found


texts = st.text(alphabet=" \tab#:-'é😀\n\x07", min_size=1, max_size=40)


@settings(max_examples=500)
@given(draws, texts)
def test_a_literal_and_a_folded_text_stay_one(draw: random.Random, text: str) -> None:
    """Whatever the text, where a loader reads it back; others are in quotes."""
    header = draw.choice(["|", "|-", ">", ">-"])
    indent = draw.choice(["  ", "    ", " "])
    document = f"a: {header} # lines\n{indent}x y\n{indent}z\n# b\nb:\n- {header}\n{indent}x\n"
    state = state_of(document)
    where, key = draw.choice([(state, "a"), (state["b"], 0)])
    where[key] = text
    found = check(document, state)
    found_line = found.splitlines()[0] if where is state else found.partition("b:\n")[2].splitlines()[0]
    is_one = bool(text.strip("\n")) and "\x07" not in text
    assert is_one is (re.search(r"[-:] [|>][0-9]?[-+]?", found_line) is not None)
    assert comments(document) == comments(found)
    # Other loaders agree: the pure one of PyYAML is asked by `check`.
    assert text == (YAML(typ="safe").load(found)["a"] if where is state else YAML(typ="safe").load(found)["b"][0])


@settings(max_examples=300)
@given(draws)
def test_new_entries_are_in_the_style_of_the_document(draw: random.Random) -> None:
    """A document that was written in one style is, with new entries, what this style makes of the new state."""
    step = draw.choice(["  ", "    "])
    look = style.Block(step, draw.choice(["", step]), draw.choice([1, 3]))
    state: dict[str, Any] = {"l": [{"x": {"y": [1]}}], "m": {"k": "word", "n": ["a", {"b": 1}]}}
    document = "# top\n\n" + look.pairs(state.items(), "")
    for _ in range(draw.randint(1, 3)):
        where = draw.choice([container for container in containers(state) if container])
        value = copy.deepcopy(draw.choice([1, "word", ["a", ["b"]], {"c": {"d": [{"e": 1, "f": [2]}]}}, "x\ny\n"]))
        if isinstance(where, list):
            where.insert(draw.randint(0, len(where)), value)
        else:
            where[f"new{draw.randrange(100)}"] = value
    assert "# top\n\n" + look.pairs(state.items(), "") == check(document, state)


# ------------------------------------------------------------------ what is not certain


def test_what_would_come_out_wrong_is_written_canonically_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The rule that makes all others harmless: the new document is read again before it is taken."""
    state = {"a": 2, "b": [1]}
    for wrong in (b"a: 3 # one\nb: [1]\n", b"b: [1]\na: 2 # one\n", b"a: 2 # one\nb: [1]", b"a: 2\nb: [1\n", b"- 1\n"):
        caplog.clear()
        with monkeypatch.context() as patch:
            patch.setattr(splice, "_spliced", lambda base, state, path, coarse, wrong=wrong: (wrong, reading.load))
            assert dumping.dump(state) == splice.rewrite(
                b"a: 1 # one\nb: [1]\n", state, lambda: dumping.dump(state), "s.yaml"
            )
        assert (
            "s.yaml: the file was rewritten without its comments and its layout, which could not be kept" in caplog.text
        )


def test_where_a_change_comes_out_wrong_the_rest_of_the_comments_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes below a key of the root is rewritten then, and nothing else."""
    spliced = splice._spliced

    def wrong_at_first(base: bytes, state: dict[Any, Any], path: str, coarse: bool) -> tuple[bytes, Any]:
        return spliced(base, state, path, coarse) if coarse else (b"a: [1]\n", reading.load)

    monkeypatch.setattr(splice, "_spliced", wrong_at_first)
    expected = "# top\n\na: # list\n - 1\n - 2\nb: 3 # b\n"
    assert expected == rewritten("# top\n\na: # list\n - 1 # one\nb: 3 # b\n", {"a": [1, 2], "b": 3})


@pytest.mark.parametrize(
    "document",
    [
        "a: &x 1 # one\nb: [*x, 2]\nc: {<<: {p: 1}, q: 2}\n",
        "&k a: 1 # one\nb: *k\n*k : 3\n".replace("*k :", "c :"),
        "a: # one\n  &x b: 1\n  c: *x\n",
        "--- !!map # map\n&r a: {? b : 1, ? c}\nd: [e: 1, 'f': 2]\n",
        "- a\n".replace("- a", "? a # one\n? b\n? c\n: - x\n  - y"),
        "a: !!set\n  ? x # one\n  ? y\nb: !!omap\n  - p: 1 # two\n  - q: 2\n",
        "a:\n  ? - \n".replace("? - ", "? x # c\n  : # d\n    - 1 # e"),
        "  a: 1 # indented\n  b:\n   - 1\n   -   x: 1 # wide\n       y: 2\n",
        "a: !!str # tag\n  text\nb:\n  # above\n  text # c\nc: !!int '5' # five\n",
        "a: |1 # one\n  x\n y\nb: >2-\n   x\n\n  y\n",
        "a: *x\n".replace("*x", '"*x" # no alias'),
        "'a b': 1 # quoted\n\"c\\td\": 2\n? 'e' # e\n: 3\n",
    ],
)
def test_odd_documents_say_any_state(document: str) -> None:
    """Aliases, tags, merge keys, question marks, odd indentation: whatever is given up, the state is right."""
    draw = random.Random(document)
    for _ in range(150):
        state = state_of(document)
        for _ in range(draw.randint(1, 3)):
            change(draw, state)
        found = rewritten(document, state)
        assert in_order(state) == in_order(state_of(found))
        assert reading.load(found.encode(), "").appendable


def test_a_large_list_that_is_shuffled_takes_no_longer_than_its_size_asks_for() -> None:
    """The first and second half of equal elements, and others in any order, find their places without a search."""
    draw = random.Random(1)
    state: dict[str, Any] = {"list": [*range(3000), *[0] * 3000]}
    document = dumping.dump(state).decode().replace("  - 7\n", "  - 7 # seven\n")
    draw.shuffle(state["list"])
    assert "  - 7 # seven\n" in check(document, state)
    state["list"] = [{"k": number} for number in range(6000)]
    check(document, state)


# ------------------------------------------------------------------ whole sessions

SETTINGS = """\
# what the robot does; edit at will

# seconds
interval: 5   # was 10
jobs:
- name: wash   # first
  done: false
# the rest can wait
- name: iron
  done: false

# not yet:
# colour: red
"""


def test_comments_survive_a_session(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_text(SETTINGS)
    with PersistedState(path) as state:
        state.jobs[0].done = True
        state.interval += 1
        state.jobs.append({"name": "fold", "done": False})
    expected = SETTINGS.replace("done: false", "done: true", 1).replace("interval: 5", "interval: 6")
    expected = expected.replace("\n\n# not yet", "\n- name: fold\n  done: false\n\n# not yet")
    assert expected == path.read_text()


def test_comments_survive_every_vacuum_of_a_session(tmp_path: Path) -> None:
    """A vacuum is made from the document of the one before, and what it wrote itself it may change again."""
    path = tmp_path / "state.yaml"
    path.write_text(SETTINGS)
    with PersistedState(path) as state:
        for number in range(5):
            state.interval = number
            state[f"key{number}"] = [number]
            state.vacuum()
            if number:
                del state[f"key{number - 1}"]
    lines = SETTINGS.replace("interval: 5", "interval: 4").replace("\n\n# not", "\nkey4:\n- 4\n\n# not")
    assert lines == path.read_text()


def test_comments_survive_two_processes(world: World) -> None:
    world.write(SETTINGS)
    first, second = world.peer(), world.peer()
    first.run("state.interval = 6")
    second.run("state.jobs[1].done = True")
    first.run("state.vacuum()")
    second.run("state.interval = 7")
    second.run("state.close()")
    first.run("state.close()")
    expected = SETTINGS.replace("interval: 5", "interval: 7").replace("iron\n  done: false", "iron\n  done: true")
    assert expected == world.path.read_text()


@pytest.mark.parametrize("save", [save_by_rename, save_in_place])
def test_comments_of_an_edit_survive_the_merge(world: World, save: Any) -> None:
    """A person adds a comment while a program has commits: both are in the file, and so is what the person wrote."""
    world.write(SETTINGS)
    peer = world.peer()
    peer.run("state.interval = 6")
    edited = world.content.replace(b"# was 10", b"# was 10, and is too fast").replace(
        b"name: iron", b"name: bake # new"
    )
    save(world.path, edited)
    peer.run("state.jobs[0].done = True")
    world.finish()
    expected = SETTINGS.replace("interval: 5", "interval: 6").replace("was 10", "was 10, and is too fast")
    expected = expected.replace("name: iron", "name: bake # new").replace("done: false", "done: true", 1)
    assert expected == world.path.read_text()


@pytest.mark.parametrize("save", [save_by_rename, save_in_place])
def test_comments_survive_in_a_file_that_had_none(world: World, save: Any) -> None:
    """What a vacuum knows of the document that it wrote holds no longer when a person has edited it."""
    world.write("a: 1\n")
    peer = world.peer()
    peer.run("state.a = 2")
    peer.run("state.vacuum()")
    save(world.path, b"a: 2 # two\n")
    peer.run("state.b = 3")
    world.finish()
    assert "a: 2 # two\nb: 3\n" == world.path.read_text()


def test_comments_survive_a_program_that_was_killed(world: World) -> None:
    world.write(SETTINGS)
    world.crash("state.interval = 6")
    peer = world.peer()
    peer.run("state.interval = 7")
    peer.run("state.close()")
    assert SETTINGS.replace("interval: 5", "interval: 7") == world.path.read_text()


def test_comments_survive_the_first_commit_behind_a_document_that_takes_none(tmp_path: Path) -> None:
    """It is rewritten before the commit, because of its `...`."""
    path = tmp_path / "state.yaml"
    path.write_text(SETTINGS + "...\n")
    with PersistedState(path) as state:
        state.interval = 6
        assert path.read_text().startswith(SETTINGS + "... # pstate 1 ")
    assert SETTINGS.replace("interval: 5", "interval: 6") == path.read_text()


def test_comments_without_a_document_survive(tmp_path: Path) -> None:
    path = tmp_path / "state.yaml"
    path.write_text("# nothing yet")
    with PersistedState(path) as state:
        state.a = 1
    assert "# nothing yet\na: 1\n" == path.read_text()


def test_a_file_of_persistedstate_is_written_canonically(tmp_path: Path) -> None:
    """Without a try to keep more: its journal is not YAML of ours."""
    path = tmp_path / "state.yaml"
    path.write_text('# by hand\na: "1"   # one\n---\n["set", [], "b", 2]\n')
    with no_warning(), PersistedState(path) as state:
        state.c = 3
    assert 'a: "1"\nb: 2\nc: 3\n' == path.read_text()


def test_what_pstate_wrote_itself_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that nobody edits costs no look for comments, in all vacuums of a session but the first."""
    path = tmp_path / "state.yaml"
    with PersistedState(path, a=1) as state:
        state.vacuum()
        monkeypatch.setattr(splice, "rewrite", None)
        for number in range(3):
            state.a = number
            state.vacuum()
    assert "a: 2\n" == path.read_text()
    monkeypatch.undo()
    monkeypatch.setattr(splice, "_spliced", None)
    with PersistedState(path) as state:
        state.a = 3
    assert "a: 3\n" == path.read_text()
    assert ["state.yaml"] == os.listdir(tmp_path)
