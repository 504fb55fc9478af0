"""Parser of CEL: from text to a tree.

The grammar is https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax, without message literals. The
meaning of a tree is documented in ``expression.py``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from ..types import JSON

MAX_LENGTH = 4_096
MAX_DEPTH = 32
"""Nesting limit of brackets and the like; the parser takes fifteen of Python's thousand stack frames for each."""
MAX_HEIGHT = 120
"""Height limit of the tree, which chained operators and members add to; the evaluator takes up to three frames each."""


class CELSyntaxError(ValueError):
    """A text is not a valid expression; the message has the mistake and its position."""


@dataclass(frozen=True, slots=True)
class Literal:
    value: JSON | bytes


@dataclass(frozen=True, slots=True)
class Name:
    name: str
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Member:
    of: Node
    field: str


@dataclass(frozen=True, slots=True)
class Index:
    of: Node
    key: Node


@dataclass(frozen=True, slots=True)
class Call:
    """Call of a function; the receiver of a method is the first argument."""

    function: str
    arguments: tuple[Node, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Macro:
    """Macro such as ``of.all(variable, body)``; ``map`` may have a filter before its body."""

    kind: str
    of: Node
    variable: str
    body: Node
    condition: Node | None = None


@dataclass(frozen=True, slots=True)
class Has:
    of: Node
    field: str


@dataclass(frozen=True, slots=True)
class Unary:
    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Logical:
    """Operator ``&&`` or ``||`` with two or more operands."""

    operator: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Conditional:
    test: Node
    then: Node
    otherwise: Node


@dataclass(frozen=True, slots=True)
class ListOf:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    items: tuple[tuple[Node, Node], ...]


Node: TypeAlias = (
    Literal | Name | Member | Index | Call | Macro | Has | Unary | Binary | Logical | Conditional | ListOf | MapOf
)


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes directly below a node."""
    match node:
        case Literal() | Name():
            return ()
        case Member(of) | Has(of):
            return (of,)
        case Index(of, key):
            return (of, key)
        case Call(_, arguments):
            return arguments
        case Macro(_, of, _, body, condition):
            return (of, body) if condition is None else (of, body, condition)
        case Unary(_, operand):
            return (operand,)
        case Binary(_, left, right):
            return (left, right)
        case Logical(_, operands):
            return operands
        case Conditional(test, then, otherwise):
            return (test, then, otherwise)
        case ListOf(items):
            return items
        case MapOf(pairs):
            return tuple(part for pair in pairs for part in pair)
        case _:
            assert_never(node)


MACROS = ("all", "exists", "exists_one", "filter", "map")

_TOKEN = re.compile(
    r"""
    (?P<blank>\s+|//[^\n]*)
  | (?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
  | (?P<int>0[xX][0-9a-fA-F]+|\d+)[uU]?
  | (?P<string>(?:[rR][bB]?|[bB][rR]?)?(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''
        |"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<operator>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(r"\\(?:[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPES |= {character: character for character in "\\'\"`?"}
_LITERALS = {"true": True, "false": False, "null": None}
_RELATIONS = ("==", "!=", "<=", ">=", "<", ">", "in")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(source: str) -> Node:
    """Return the tree of an expression.

    Raises:
        CELSyntaxError: The text is not a valid expression, or is too long or nested too deep.
    """
    if len(source) > MAX_LENGTH:
        raise CELSyntaxError(f"it has {len(source):,} characters; the maximum is {MAX_LENGTH:,}")
    node = _Parser(list(_tokens(source))).whole()
    if _height(node) > MAX_HEIGHT:
        raise CELSyntaxError(f"it chains or nests more than {MAX_HEIGHT} operators and members")
    return node


def _height(node: Node) -> int:
    level: tuple[Node, ...] = (node,)
    height = 0
    while level:
        height += 1
        level = tuple(child for parent in level for child in children(parent))
    return height


def problems(node: Node, variables: frozenset[str], functions: Mapping[str, int]) -> Iterator[str]:
    """Yield the unknown names in a tree, and the calls with a wrong number of arguments.

    ``functions`` maps each function to its number of arguments, including the receiver.
    """
    match node:
        case Name(name, at) if name not in variables:
            known = " and ".join(repr(variable) for variable in sorted(variables, reverse=True))
            are = "s are" if len(variables) > 1 else " is"
            yield (
                f"uses the variable {name!r} at character {at + 1}; the variable{are} {known}, as in "
                f"event.data.{name}. "
                f'Put text in quotes: "{name}"; in an f-string, write {{value!r}}'
            )
        case Call(function, arguments, at) if problem := _problem_of_call(function, len(arguments), functions):
            yield f"calls {function!r} at character {at + 1}, {problem}"
        case Macro(_, of, variable):
            yield from problems(of, variables, functions)
            for part in children(node)[1:]:
                yield from problems(part, variables | {variable}, functions)
        case _:
            for child in children(node):
                yield from problems(child, variables, functions)


def _problem_of_call(function: str, arguments: int, functions: Mapping[str, int]) -> str | None:
    if function not in functions:
        close = difflib.get_close_matches(function, functions, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return f"which does not exist{hint}; the functions are {', '.join(sorted(functions))}"
    takes = functions[function]
    return None if arguments == takes else f"with {arguments} arguments, including its receiver; it takes {takes}"


def _tokens(source: str) -> Iterator[_Token]:
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            raise CELSyntaxError(f"{source[at]!r} at character {at + 1} is not valid here")
        kind = match.lastgroup or ""
        if kind != "blank":
            yield _Token(kind, match[kind], at)
        at = match.end()
    yield _Token("end", "", at)


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def whole(self) -> Node:
        node = self._expression()
        if self._token.kind != "end":
            raise self._unexpected()
        return node

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _accept(self, *texts: str) -> str | None:
        token = self._token
        if token.kind in ("operator", "name") and token.text in texts:
            self._next += 1
            return token.text
        return None

    def _expect(self, text: str) -> None:
        if self._accept(text) is None:
            raise self._unexpected(f", where {text!r} is expected")

    def _unexpected(self, expected: str = "") -> CELSyntaxError:
        token = self._token
        what = "it ends" if token.kind == "end" else f"{token.text!r} is at character {token.at + 1}"
        return CELSyntaxError(what + (expected or ", where it is not expected"))

    def _deeper(self, parse: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CELSyntaxError(f"it is nested more than {MAX_DEPTH} deep")
        node = parse()
        self._depth -= 1
        return node

    def _expression(self) -> Node:
        return self._deeper(self._conditional)

    def _conditional(self) -> Node:
        test = self._logical("||", lambda: self._logical("&&", self._relation))
        if self._accept("?") is None:
            return test
        then = self._expression()
        self._expect(":")
        return Conditional(test, then, self._expression())

    def _logical(self, operator: str, operand: Callable[[], Node]) -> Node:
        operands = [operand()]
        while self._accept(operator):
            operands.append(operand())
        return operands[0] if len(operands) == 1 else Logical(operator, tuple(operands))

    def _relation(self) -> Node:
        return self._left_to_right(_RELATIONS, self._sum)

    def _sum(self) -> Node:
        return self._left_to_right(("+", "-"), self._product)

    def _product(self) -> Node:
        return self._left_to_right(("*", "/", "%"), self._unary)

    def _left_to_right(self, operators: tuple[str, ...], operand: Callable[[], Node]) -> Node:
        node = operand()
        while operator := self._accept(*operators):
            node = Binary(operator, node, operand())
        return node

    def _unary(self) -> Node:
        operator = self._accept("!", "-")
        return Unary(operator, self._deeper(self._unary)) if operator else self._postfix()

    def _postfix(self) -> Node:
        node = self._primary()
        while True:
            if self._accept("."):
                node = self._member(node)
            elif self._accept("["):
                key = self._expression()
                self._expect("]")
                node = Index(node, key)
            else:
                return node

    def _member(self, of: Node) -> Node:
        at = self._token.at
        name = self._name()
        if self._accept("(") is None:
            return Member(of, name)
        if name in MACROS:
            return self._macro(name, of)
        return Call(name, (of, *self._items(")")), at)

    def _macro(self, kind: str, of: Node) -> Node:
        if self._token.text in (*_LITERALS, "in"):
            raise self._unexpected(", where a name is expected")
        variable = self._name()
        self._expect(",")
        body = self._expression()
        condition = None
        if kind == "map" and self._accept(","):
            condition, body = body, self._expression()
        self._expect(")")
        return Macro(kind, of, variable, body, condition)

    def _name(self) -> str:
        token = self._token
        if token.kind != "name":
            raise self._unexpected(", where a name is expected")
        self._next += 1
        return token.text

    def _primary(self) -> Node:
        token = self._token
        if token.kind in ("int", "float", "string"):
            self._next += 1
            return Literal(_value(token))
        if token.kind == "name":
            self._next += 1
            return self._named(token)
        if self._accept("("):
            node = self._expression()
            self._expect(")")
            return node
        if self._accept("["):
            return ListOf(self._items("]"))
        if self._accept("{"):
            return self._map()
        raise self._unexpected()

    def _named(self, token: _Token) -> Node:
        if token.text in _LITERALS:
            return Literal(_LITERALS[token.text])
        if token.text == "in":
            self._next -= 1
            raise self._unexpected()
        if self._accept("(") is None:
            return Name(token.text, token.at)
        arguments = self._items(")")
        if token.text != "has":
            return Call(token.text, arguments, token.at)
        if len(arguments) != 1 or not isinstance(arguments[0], Member):
            raise CELSyntaxError("has() takes one field, such as has(event.data.email)")
        return Has(arguments[0].of, arguments[0].field)

    def _items(self, end: str) -> tuple[Node, ...]:
        items: list[Node] = []
        while not self._accept(end):
            items.append(self._expression())
            if not self._accept(","):
                self._expect(end)
                break
        return tuple(items)

    def _map(self) -> Node:
        items: list[tuple[Node, Node]] = []
        while not self._accept("}"):
            key = self._expression()
            self._expect(":")
            items.append((key, self._expression()))
            if not self._accept(","):
                self._expect("}")
                break
        return MapOf(tuple(items))


def _value(token: _Token) -> JSON | bytes:
    if token.kind == "int":
        return int(token.text, 16) if token.text[:2] in ("0x", "0X") else int(token.text)
    if token.kind == "float":
        return float(token.text)
    prefix = token.text[: len(token.text) - len(token.text.lstrip("rRbB"))].lower()
    quoted = token.text[len(prefix) :]
    width = 3 if quoted[:3] in ('"""', "'''") and len(quoted) >= 6 else 1
    text = quoted[width:-width]
    try:
        if "r" not in prefix:
            text = _ESCAPE.sub(_unescaped_byte if "b" in prefix else _unescaped, text)
        return text.encode(errors="surrogateescape") if "b" in prefix else text
    except CELSyntaxError as err:
        raise CELSyntaxError(
            f"{err} in the string at character {token.at + 1}; in a raw string, r'...', a backslash is plain text"
        ) from None
    except UnicodeEncodeError:
        raise CELSyntaxError(f"the bytes at character {token.at + 1} are not valid UTF-8") from None


def _unescaped(match: re.Match[str]) -> str:
    two, four, eight, octal, other = match.groups()
    code = int(octal, 8) if octal else int(two or four or eight or "0", 16)
    if other not in (None, *_ESCAPES) or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise CELSyntaxError(f"{match[0]!r} is not an escape sequence")
    return _ESCAPES[other] if other else chr(code)


def _unescaped_byte(match: re.Match[str]) -> str:
    two, _, _, octal, _ = match.groups()
    if not (two or octal):
        return _unescaped(match)
    code = int(two, 16) if two else int(octal, 8)
    return chr(code if code < 0x80 else 0xDC00 + code)  # which "surrogateescape" encodes as one byte
