"""Rules over columns, such as `motion_px < 60 and static_share < 0.9`: parsed, checked, and worked out by the column.

The grammar is a small part of Python's: numbers, texts, True and False, column names, + - * /, comparisons (chains
too), `in [...]`, `not in [...]`, and, or, not, brackets. Nothing is ever executed: the text is read as a tree, and
whatever is not in this list is refused.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_COMPARE = {ast.Lt: pc.less, ast.LtE: pc.less_equal, ast.Gt: pc.greater, ast.GtE: pc.greater_equal, ast.Eq: pc.equal,
            ast.NotEq: pc.not_equal}  # fmt: skip
_ARITHMETIC = {ast.Add: pc.add, ast.Sub: pc.subtract, ast.Mult: pc.multiply, ast.Div: pc.divide}
_LONGEST = 2000  # characters of a rule


class ExpressionError(ValueError):
    """A rule that cannot be read or worked out; the message names what is wrong, and the choices."""


@dataclass(frozen=True)
class Part:
    """One condition of a rule; all conditions of a rule must hold."""

    text: str
    tree: ast.expr
    columns: tuple[str, ...]  # in the order in which they are named

    def holds(self, table: pa.Table) -> pa.Array:
        """Whether the condition holds, a boolean a row; an unknown value (null or not a number) holds nothing."""
        return pc.fill_null(_boolean(_value(self.tree, table), self.text, table.num_rows), False)


def parse(text: str, schema: pa.Schema) -> list[Part]:
    """The conditions of a rule that are joined by `and`, checked against the columns of `schema`.

    Raises ExpressionError naming the unknown column and the choices, or what is not allowed.
    """
    if len(text) > _LONGEST:
        raise ExpressionError(f"a rule of {len(text)} characters; at most {_LONGEST}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"{text!r} is no rule: {getattr(error, 'msg', error)}. Write for instance "
                              "motion_px < 60 and static_share < 0.9") from error  # fmt: skip
    conditions = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    parts = [Part(ast.unparse(one), one, _columns(one)) for one in conditions]
    empty = schema.empty_table()
    for part in parts:
        unknown = [name for name in part.columns if name not in schema.names]
        if unknown:
            raise ExpressionError(f"no column {unknown[0]!r} in {part.text!r}; choices: {', '.join(schema.names)}")
        part.holds(empty)
    return parts


def _columns(tree: ast.expr) -> tuple[str, ...]:
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return tuple(dict.fromkeys(node.id for node in sorted(named, key=lambda node: (node.lineno, node.col_offset))))


def _value(node: ast.expr, table: pa.Table) -> Any:
    """The value of a tree, an Arrow array or scalar. Raises ExpressionError."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, str, bool):
        return pa.scalar(float(node.value) if type(node.value) is int else node.value)
    if isinstance(node, ast.Name):
        return _number(table[node.id])
    try:
        if isinstance(node, ast.BoolOp):
            join = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            sides = [_boolean(_value(one, table), ast.unparse(one), table.num_rows) for one in node.values]
            return functools.reduce(join, sides)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return pc.invert(_boolean(_value(node.operand, table), ast.unparse(node.operand), table.num_rows))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return pc.negate(_value(node.operand, table))
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return _ARITHMETIC[type(node.op)](_value(node.left, table), _value(node.right, table))
        if isinstance(node, ast.Compare):
            return _compare(node, table)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        kinds = sorted(f"{one.id} is {table.schema.field(one.id).type}" for one in ast.walk(node)
                       if isinstance(one, ast.Name))  # fmt: skip
        raise ExpressionError(f"{ast.unparse(node)!r} cannot be worked out ({', '.join(kinds)}): a text is compared "
                              "with a text in quotes, a number with a number") from error  # fmt: skip
    raise ExpressionError(f"{ast.unparse(node)!r} is not allowed in a rule; allowed are columns, numbers, texts, "
                          "+ - * /, < <= > >= == !=, in [...], and, or, not")  # fmt: skip


def _compare(node: ast.Compare, table: pa.Table) -> Any:
    found, left = [], _value(node.left, table)
    for sign, right in zip(node.ops, node.comparators):
        if isinstance(sign, (ast.In, ast.NotIn)):
            mask = pc.is_in(left, _listed(right, table))
            found.append(pc.invert(mask) if isinstance(sign, ast.NotIn) else mask)
        elif type(sign) in _COMPARE:
            value = _value(right, table)
            found.append(_COMPARE[type(sign)](left, value))
            left = value
        else:
            raise ExpressionError(f"{ast.unparse(node)!r}: `is` is not allowed in a rule; write ==")
    return functools.reduce(pc.and_kleene, found)


def _listed(node: ast.expr, table: pa.Table) -> pa.Array:
    if not isinstance(node, (ast.List, ast.Tuple)) or not all(isinstance(one, ast.Constant) for one in node.elts):
        raise ExpressionError(f"{ast.unparse(node)!r} is no list of values; write for instance in ['ones', 'twos']")
    return pa.array([_value(one, table).as_py() for one in node.elts])


def _number(column: Any) -> Any:
    """Whole numbers as float64, so that / divides and a mixed comparison needs no thought."""
    return pc.cast(column, pa.float64()) if pa.types.is_integer(column.type) else column


def _boolean(value: Any, text: str, rows: int) -> Any:
    """A truth value a row. Raises ExpressionError for a number or a text."""
    if value.type != pa.bool_():
        raise ExpressionError(f"{text!r} is a {value.type}, not a condition; compare it with something")
    return pa.repeat(value, rows) if isinstance(value, pa.Scalar) else value
