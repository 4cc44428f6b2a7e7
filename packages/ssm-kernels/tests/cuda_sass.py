"""Read the machine code that nvcc made, as `cuobjdump -sass` prints it: instructions and loops."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

LINE = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:\{\s*)?(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*?);")
FUNCTION = re.compile(r"\s*Function : (\S+)")
ADDRESS = re.compile(r"0x([0-9a-f]+)\s*$")
FLOATING_POINT = re.compile(r"[FDH](ADD|MUL|FMA|MNMX)\d?|[HD]MMA|HGMMA|MUFU")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its address, whether a predicate guards it, opcode and the rest."""

    address: int
    guarded: bool
    name: str
    operands: str

    @property
    def opcode(self) -> str:
        """The name without what follows the first dot."""
        return self.name.partition(".")[0]

    @property
    def ends(self) -> bool:
        """Whether what stands next is not run next: jumps without a condition, before or in it."""
        return (
            self.opcode in ("BRA", "EXIT", "RET", "BRX", "JMX")
            and not self.guarded
            and not re.match(r"\s*!?U?P\w+\s*,", self.operands)
            and ".DIV" not in self.name
        )

    @property
    def target(self) -> int | None:
        """Where a branch goes; None for `BRA.DIV`, a detour of warps whose lanes come to a shuffle
        one after the other."""
        found = ADDRESS.search(self.operands)
        if self.opcode != "BRA" or ".DIV" in self.name or found is None:
            return None
        return int(found[1], 16)


@dataclass(frozen=True)
class Loop:
    """The instructions of a loop, those of loops inside it once; `own` are those outside these."""

    body: tuple[Instruction, ...]
    own: tuple[Instruction, ...]

    def count(self, opcode: str) -> int:
        return sum(x.opcode == opcode for x in self.body)

    @property
    def weight(self) -> int:
        return sum(bool(FLOATING_POINT.fullmatch(x.opcode)) for x in self.own)


@dataclass(frozen=True)
class Code:
    """The instructions of one kernel in the order of their addresses, without padding."""

    instructions: tuple[Instruction, ...]

    def count(self, *opcodes: str) -> int:
        return sum(x.opcode in opcodes for x in self.instructions)

    @cached_property
    def blocks(self) -> dict[int, list[Instruction]]:
        """Start -> instructions that are always run together."""
        starts = {x.target for x in self.instructions if x.target is not None}
        blocks: dict[int, list[Instruction]] = {}
        fresh = True
        for x in self.instructions:
            if fresh or x.address in starts:
                blocks[x.address] = current = []
            current.append(x)
            fresh = x.ends or x.target is not None
        return blocks

    @cached_property
    def successors(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        starts = list(self.blocks)
        for start, following in zip(starts, [*starts[1:], None], strict=True):
            last = self.blocks[start][-1]
            found[start] = [t for t in (last.target,) if t in self.blocks]
            if following is not None and not last.ends:
                found[start].append(following)
        return found

    @cached_property
    def reached(self) -> list[int]:
        """The blocks that are reached from the first, in reverse postorder."""
        postorder: list[int] = []
        first = next(iter(self.blocks))
        seen, stack = {first}, [(first, iter(self.successors[first]))]
        while stack:
            block, rest = stack[-1]
            following = next((b for b in rest if b not in seen), None)
            if following is None:
                postorder.append(block)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(self.successors[following])))
        return postorder[::-1]

    @cached_property
    def predecessors(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {block: [] for block in self.reached}
        for block in self.reached:
            for following in self.successors[block]:
                found[following].append(block)
        return found

    def loops(self) -> list[Loop]:
        """The natural loops: blocks that lead to a jump back to a block that dominates them."""
        dominators = self._dominators()
        loops: dict[int, set[int]] = {}
        for block in self.reached:
            for header in self.successors[block]:
                if header in dominators[block]:
                    loops.setdefault(header, {header}).update(self._leading_to(block, header))
        return [self._loop(header, body, loops) for header, body in loops.items()]

    def main_loop(self) -> Loop | None:
        """The loop without another inside that has the most exponentials and then arithmetic."""
        innermost = [loop for loop in self.loops() if loop.own == loop.body]
        return max(innermost, key=lambda loop: (loop.count("MUFU"), loop.weight), default=None)

    def _loop(self, header: int, body: set[int], loops: dict[int, set[int]]) -> Loop:
        inner = [other for start, other in loops.items() if start != header and other < body]
        own = body.difference(*inner)
        return Loop(self._instructions(body), self._instructions(own))

    def _instructions(self, blocks: set[int]) -> tuple[Instruction, ...]:
        return tuple(x for start in sorted(blocks) for x in self.blocks[start])

    def _leading_to(self, block: int, header: int) -> set[int]:
        """All blocks from which `block` is reached without passing the header."""
        found, todo = {header}, [block]
        while todo:
            current = todo.pop()
            if current not in found:
                found.add(current)
                todo.extend(self.predecessors[current])
        return found

    def _dominators(self) -> dict[int, set[int]]:
        """Block -> the blocks on every way to it."""
        first, *others = self.reached
        everything = set(self.reached)
        dominators = {block: everything for block in others} | {first: {first}}
        changed = True
        while changed:
            changed = False
            for block in others:
                before = (dominators[b] for b in self.predecessors[block])
                new = set.intersection(*before) | {block}
                changed |= new != dominators[block]
                dominators[block] = new
        return dominators


def functions(text: str) -> Iterator[tuple[str, Code]]:
    """Mangled name and code of every function in the output of `cuobjdump -sass`."""
    name, instructions = "", list[Instruction]()
    for line in text.splitlines():
        if found := FUNCTION.match(line):
            if instructions:
                yield name, Code(tuple(instructions))
            name, instructions = found[1], []
        elif (found := LINE.match(line)) and found[3] != "NOP":
            instructions.append(
                Instruction(int(found[1], 16), found[2] is not None, found[3], found[4])
            )
    if instructions:
        yield name, Code(tuple(instructions))
