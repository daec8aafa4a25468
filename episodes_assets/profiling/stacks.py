"""A profile as folded stacks with file and line, and what is shown of it: hot lines, a flame graph; pure.

Folded stacks are the format of Brendan Gregg's FlameGraph: a line for each distinct stack, its frames from
the outermost in, separated by semicolons, and how often it was seen. A profile names functions, files and
lines and holds no value of any variable. How one is taken is `engines`.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

# Of a packed profile. The table refuses a larger one.
MOST_BYTES = 900_000
# Of a profile's text, packed or from another program: more is given up, so that memory stays bounded.
MOST_TEXT_BYTES = 32_000_000
MOST_FRAMES = 200
OWN = "episodes_assets"
# What a thread is in while it has nothing to do, in Python's own library.
_WAITING = re.compile(
    r"(threading|selectors|queue|concurrent/futures/thread|multiprocessing/"
    r"(connection|queues|synchronize|popen_\w+))\.py"
)
_POOL = "concurrent/futures/thread.py"
_FRAME = re.compile(r"(?P<function>.*) \((?P<file>[^()]*):(?P<line>\d{1,9})\)")
# What would end a frame or a line, and other characters that nobody can read.
_UNSAFE = re.compile(r"[;()\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LONGEST_NAME = 300
# The flame graph, in pixels.
WIDTH = 1200
ROW = 18
# How wide one of its letters is: monospaced, 11 pixels high.
_LETTER = 6.7
_OWN, _OTHER = "#a9a2f5", "#d7d3e4"


class Frame(NamedTuple):
    """A line of a function that was being executed.

    Attributes:
        function: Its name, with those of the classes and functions around it.
        file: Below the folder it was imported from, as `pandas/core/frame.py`; empty if there is none.
        line: Its number; 0 if there is none.
    """

    function: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        """As in folded stacks."""
        return f"{self.function} ({self.place})" if self.file else self.function

    @property
    def place(self) -> str:
        """File and line; empty if there is no file."""
        return f"{self.file}:{self.line}" if self.file else ""

    @property
    def is_own(self) -> bool:
        """Whether it is code of this project, and not of a library."""
        return self.file.startswith(OWN)


RARE = Frame("[stacks that were seen rarely]")
CUT = Frame("[outer frames]")


class HotLine(NamedTuple):
    """A line of our code, and the samples in which it was the innermost of our lines.

    Attributes:
        frame: The line.
        samples: In how many samples it, or what it calls in libraries, was being executed.
        calls: What was executed most often there: a function of a library, or the line's own.
    """

    frame: Frame
    samples: int
    calls: str


class Box(NamedTuple):
    """A frame in a flame graph.

    Attributes:
        frame: The frame.
        depth: How many frames are around it.
        first: How many samples are to its left.
        samples: In how many it, or what it called, was being executed.
    """

    frame: Frame
    depth: int
    first: int
    samples: int


Stack = tuple[Frame, ...]


@dataclass(frozen=True)
class Profile:
    """How often each stack was seen.

    Attributes:
        rate: Samples a second.
        stacks: By stack, from the outermost frame in.
    """

    rate: int
    stacks: Mapping[Stack, int]

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return sum(self.stacks.values())

    @property
    def seconds(self) -> float:
        """The time that they stand for."""
        return self.samples / self.rate

    def without_waiting(self, but_in: str | None = None) -> "Profile":
        """Without the samples of threads that waited for other threads or for something to do.

        Args:
            but_in: A file; threads that are in it stay.
        """
        return Profile(
            self.rate,
            {
                stack: count
                for stack, count in self.stacks.items()
                if not _WAITING.fullmatch(stack[-1].file) or any(each.file == but_in for each in stack)
            },
        )

    def within(self, file: str) -> "Profile":
        """Without the frames around the outermost one of a file, or of a folder, where a stack has one."""
        stacks: Counter[Stack] = Counter()
        for stack, count in self.stacks.items():
            begin = next((n for n, each in enumerate(stack) if each.file.startswith(file)), 0)
            stacks[stack[begin:]] += count
        return Profile(self.rate, stacks)

    def working_for(self, folder: str) -> "Profile":
        """Only the threads that do the work of a folder's files, without the frames around the outermost one.

        Those are the threads that have such a file on their stack, and those of thread pools, to which it
        hands parts of its work. Others of the process, such as those that read what child processes print,
        look busy whenever they wait in a system call.
        """
        stacks = {
            stack: count
            for stack, count in self.stacks.items()
            if any(each.file.startswith(folder) or each.file == _POOL for each in stack)
        }
        return Profile(self.rate, stacks).within(folder)

    def hot_lines(self, most: int) -> list[HotLine]:
        """The lines of our code in which most time was spent, the hottest first.

        A sample counts for the innermost of our lines, with what that calls in libraries; where there is
        none, for the innermost line at all.
        """
        samples: Counter[Frame] = Counter()
        calls: dict[Frame, Counter[str]] = {}
        for stack, count in self.stacks.items():
            own = next((frame for frame in reversed(stack) if frame.is_own), stack[-1])
            samples[own] += count
            calls.setdefault(own, Counter())[stack[-1].function] += count
        ordered = sorted(samples.items(), key=lambda each: (-each[1], each[0]))
        return [HotLine(frame, count, calls[frame].most_common(1)[0][0]) for frame, count in ordered[:most]]

    def boxes(self, most: int) -> list[Box]:
        """The boxes of a flame graph: stacks in the order of their frames, equal outer frames together.

        Args:
            most: How many at most; the narrowest are left out.
        """
        boxes: list[Box] = []
        open_boxes: list[tuple[Frame, int]] = []  # with the sample at which each began

        def close(down_to: int, at: int) -> None:
            while len(open_boxes) > down_to:
                each, first = open_boxes.pop()
                boxes.append(Box(each, len(open_boxes), first, at - first))

        at = 0
        for stack, count in sorted(self.stacks.items()):
            common = 0
            while common < min(len(stack), len(open_boxes)) and stack[common] == open_boxes[common][0]:
                common += 1
            close(common, at)
            open_boxes.extend((each, at) for each in stack[common:])
            at += count
        close(0, at)
        # Those around a box are at least as wide, and before it among equals.
        widest = sorted(boxes, key=lambda box: (-box.samples, box.depth))[:most]
        return sorted(widest, key=lambda box: (box.depth, box.first))

    def folded(self) -> str:
        """As folded stacks, the most frequent first."""
        ordered = sorted(self.stacks.items(), key=lambda each: (-each[1], each[0]))
        return "".join(f"{';'.join(map(str, stack))} {count}\n" for stack, count in ordered)

    def pack(self, most_bytes: int = MOST_BYTES) -> bytes:
        """Folded and compressed. Of too many stacks, those that were seen least are counted together."""
        profile = self
        while (
            len(packed := zlib.compress(profile.folded().encode())) > most_bytes and len(profile.stacks) > 1
        ):
            ordered = sorted(profile.stacks.items(), key=lambda each: (each[0] != (RARE,), each[1]))
            half = len(ordered) // 2 + 1
            rare = sum(count for _, count in ordered[:half])
            profile = Profile(self.rate, {(RARE,): rare, **dict(ordered[half:])})
        return packed

    def speedscope(self, name: str) -> dict[str, Any]:
        """As a file of https://www.speedscope.app, to be written as JSON."""
        stacks = sorted(self.stacks.items())
        frames = {
            frame: number for number, frame in enumerate(dict.fromkeys(f for s, _ in stacks for f in s))
        }
        return {
            "$schema": "https://www.speedscope.app/file-format-schema.json",
            "name": name,
            "exporter": "episodes",
            "activeProfileIndex": 0,
            "shared": {
                "frames": [
                    {"name": each.function, **({"file": each.file, "line": each.line} if each.file else {})}
                    for each in frames
                ]
            },
            "profiles": [
                {
                    "type": "sampled",
                    "name": name,
                    "unit": "seconds",
                    "startValue": 0,
                    "endValue": self.seconds,
                    "samples": [[frames[frame] for frame in stack] for stack, _ in stacks],
                    "weights": [count / self.rate for _, count in stacks],
                }
            ],
        }


def unpack(packed: bytes, rate: int) -> Profile:
    """A profile that `Profile.pack` has packed; of a text that is too long, the beginning."""
    text = zlib.decompressobj().decompress(packed, MOST_TEXT_BYTES)
    return parse_folded(text.decode("utf-8", "replace").split("\n"), rate)


def parse_folded(lines: Iterable[str], rate: int, roots: Sequence[str] = ()) -> Profile:
    """A profile from folded stacks; lines that are none are left out, and so are names of threads.

    Args:
        lines: The lines.
        rate: Samples a second.
        roots: Folders that modules are imported from, to be taken off the files.
    """
    stacks: Counter[Stack] = Counter()
    for line in lines:
        text, _, count = line.rstrip("\n").rpartition(" ")
        if not text or not count.isdecimal() or len(count) > 9 or int(count) == 0:
            continue
        names = text.split(";")
        frames = [_parse_frame(name, roots) for name in names if not name.startswith("thread (")]
        if frames:
            stacks[within_most_frames(frames)] += int(count)
    return Profile(rate, stacks)


def _parse_frame(name: str, roots: Sequence[str]) -> Frame:
    found = _FRAME.fullmatch(name)
    if found is None:
        return Frame(_clean(name))
    return frame(found["function"], found["file"], int(found["line"]), roots)


def frame(function: str, file: str, line: int, roots: Sequence[str]) -> Frame:
    """A frame of names as they were found in a process, whose file is told below the folder that has it."""
    for root in sorted(roots, key=len, reverse=True):
        if root and file.startswith(root.rstrip("/") + "/"):
            file = file[len(root.rstrip("/")) + 1 :]
            break
    # Of a file that no import would find, such as a script, the folders are nobody's business.
    file = file.rpartition("/")[2] if file.startswith("/") else file
    return Frame(_clean(function), _clean(file), line) if file else Frame(_clean(function))


def _clean(name: str) -> str:
    """A name without characters that have a meaning in folded stacks, of bounded length."""
    return _UNSAFE.sub("_", name[:_LONGEST_NAME]).strip() or "_"


def within_most_frames(frames: Sequence[Frame]) -> Stack:
    """A stack, of which the outermost frames are left out if there are too many, as in a deep recursion."""
    return tuple(frames) if len(frames) <= MOST_FRAMES else (CUT, *frames[1 - MOST_FRAMES :])


def flame_graph(profile: Profile, most: int) -> str:
    """A flame graph as an SVG, outermost frames on top: as wide as a box is, so much time was spent in it.

    The same picture stands in a materialisation's metadata, where nothing but its own attributes colours it,
    and in the dashboard, whose style sheet and script act on its classes. Every name in it is escaped:
    functions and files may be called anything.

    Args:
        profile: Any.
        most: Boxes to draw: the widest.
    """
    boxes = profile.boxes(most)
    height = ROW * (1 + max((box.depth for box in boxes), default=0))
    drawn = "".join(_draw(box, profile) for box in boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="flame" viewBox="0 0 {WIDTH} {height}"'
        f' font-family="monospace" font-size="11" role="img" aria-label="Flame graph">{drawn}</svg>'
    )


def _draw(box: Box, profile: Profile) -> str:
    scale = WIDTH / profile.samples
    x, width, y = box.first * scale, box.samples * scale, box.depth * ROW
    name = str(box.frame)
    about = f"{name}\n{box.samples / profile.rate:.2f} s, {box.samples / profile.samples:.1%}"
    letters = int((width - 6) / _LETTER)
    shown = name if len(name) <= letters else f"{name[: letters - 1]}…" if letters > 2 else ""
    colour, kind = (_OWN, "own") if box.frame.is_own else (_OTHER, "library")
    return (
        f'<g class="{kind}" data-first="{box.first}" data-samples="{box.samples}">'
        f"<title>{escape(about)}</title>"
        f'<rect x="{x:.2f}" y="{y}" width="{max(width - 0.5, 0.2):.2f}" height="{ROW - 1}" fill="{colour}"/>'
        f'<text x="{x + 3:.2f}" y="{y + 13}">{escape(shown)}</text></g>'
    )
