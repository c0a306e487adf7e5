"""YAML whose faults can be shown: every key with its line, no key twice; bounded, whatever its aliases stand for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import ValueshiftError
from ..core.limits import PLAN_BYTES, PLAN_DEPTH, PLAN_VALUES
from ..core.outside import regular_file

Location = Sequence[str | int]
"""Keys and positions from the top of the document down to a value."""


class Document:
    """The content of a YAML file, with the line of everything in it."""

    def __init__(self, path: Path) -> None:
        """Read a file.

        Raises:
            ValueshiftError: it is absent or no YAML, is larger or deeper than `core.limits` allows, its top is no mapping, or a
                key stands in it twice.
        """
        self.path = path
        try:
            text = regular_file(path, "give the YAML file of a plan", PLAN_BYTES).read_text(encoding="utf-8")
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            self._refuse_unbounded(node)
            self.content: Any = yaml.safe_load(text)
        except OSError as error:
            raise ValueshiftError(
                f"{path} cannot be read ({error.strerror or error}); give the YAML of a plan"
            ) from error
        except UnicodeDecodeError as error:
            raise ValueshiftError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise ValueshiftError(f"{path}, line {line}: {error.problem}; mend the YAML there") from error
        except RecursionError:
            raise ValueshiftError(f"{path} is nested deeper than {PLAN_DEPTH}; mend the YAML") from None
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date or a number that there is not
            raise ValueshiftError(f"{path}: {error}; mend the YAML") from error
        if node is None or not isinstance(self.content, dict):
            raise ValueshiftError(f"{path} holds no mapping; begin with `models:`")
        self.node: yaml.Node = node
        self._refuse_repeated_keys(self.node, set())

    def fault(self, location: Location, message: str) -> ValueshiftError:
        """The error to raise for a value: file, line, field, what is wrong and the remedy."""
        field = ".".join(str(part) for part in location)
        return ValueshiftError(f"{self.path}, line {self.line(location)}, {field}: {message}")

    def line(self, location: Location) -> int:
        """The line, from 1, of a value's key; of the nearest thing around it where there is no such value."""
        node, line = self.node, self.node.start_mark.line
        for part in location:
            step = _child(node, part)
            if step is not None:
                line, node = step
        return int(line) + 1

    def _refuse_unbounded(self, node: yaml.Node | None) -> None:
        """Refuse what would grow past the bounds when it is walked: an alias counts wherever it is used."""
        if node is not None and self._values(node, 0, {}) > PLAN_VALUES:
            raise ValueshiftError(
                f"{self.path} stands for over {PLAN_VALUES:,} values, with those of its aliases; a plan needs far fewer"
            )

    def _values(self, node: yaml.Node, depth: int, known: dict[int, int]) -> int:
        """How many values a node stands for."""
        line = node.start_mark.line + 1
        if depth > PLAN_DEPTH:
            raise ValueshiftError(f"{self.path}, line {line}: nested deeper than {PLAN_DEPTH}; mend the YAML there")
        if isinstance(node, yaml.ScalarNode):
            if any("\ud800" <= letter <= "\udfff" for letter in node.value):
                raise ValueshiftError(f"{self.path}, line {line}: half a surrogate pair is no text; mend it there")
            return 1
        if id(node) not in known:
            parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
            known[id(node)] = 1 + sum(self._values(part, depth + 1, known) for part in parts)
        return known[id(node)]

    def _refuse_repeated_keys(self, node: yaml.Node, visited: set[int]) -> None:
        if id(node) in visited:  # an alias
            return
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen: dict[Any, int] = {}
            for key, value in node.value:
                if key.value in seen:
                    raise ValueshiftError(
                        f"{self.path}, line {key.start_mark.line + 1}, {key.value}: stands in line {seen[key.value]} "
                        "already; give one of the two another name"
                    )
                seen[key.value] = key.start_mark.line + 1
                self._refuse_repeated_keys(value, visited)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._refuse_repeated_keys(item, visited)


def _child(node: yaml.Node, part: str | int) -> tuple[int, yaml.Node] | None:
    """Line and node of a key's value or of an item; None where the node has no such part."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line, node.value[part]
    return None
