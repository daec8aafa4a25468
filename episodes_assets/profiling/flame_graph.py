"""A flame graph as an SVG, outermost frames on top: as wide as a box is, so much time was spent in it.

The same picture stands in a materialisation's metadata, where nothing but its own attributes colours it, and
in the dashboard, whose style sheet and script act on its classes. Every name in it is escaped: functions and
files may be called anything.
"""

from html import escape

from episodes_assets.profiling.stacks import Box, Profile

WIDTH = 1200
ROW = 18
# Of the 11 pixels high, monospaced letters.
_LETTER = 6.7
_OWN, _OTHER = "#a9a2f5", "#d7d3e4"


def flame_graph(profile: Profile, most: int) -> str:
    """The SVG of a profile, of at most so many boxes: the widest."""
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
