"""What the page shows, as HTML. All texts are escaped."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
import numpy as np

from genmask_jax.inference.segmentation import Segmentation
from genmask_jax.utils.curves import plot
from genmask_jax.utils.sheets import HEAT, label_colour

MAX_DENSITY = 5.0
"""At which the plot of densities is cut off; that of masks has a peak many times as high."""
FRAME_SECONDS = 0.25
"""Between two steps of an image that emerges."""

TEMPLATES = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
PICTURE = """
{% macro picture(path, alt) %}
<a href="{{ path | url }}" target="_blank"><img src="{{ path | url }}" alt="{{ alt }}"></a>
{% endmacro %}
"""
EXAMPLES = """
<h2>Examples</h2>
<ul class="examples">
{% for path, phrases in examples %}
  <li><button type="button" data-index="{{ loop.index0 }}">
    <img src="{{ path | url }}" alt="Scene {{ loop.index }}:"><span>{{ phrases }}</span>
  </button></li>
{% endfor %}
</ul>
"""
MESSAGE = """
<div class="message {{ 'problem' if problem }}">{% for line in lines %}<p>{{ line }}</p>{% endfor %}</div>
"""
OVERLAY = (
    PICTURE
    + """
<figure class="large">
  {{ picture(path, alt) }}
  <figcaption>The image, dark grey outside the masks.
    {% if many %}A pixel in several masks belongs to the most probable phrase.{% endif %}</figcaption>
</figure>
"""
)
DETAILS = (
    PICTURE
    + """
<ul class="phrases">
{% for p in phrases %}
  <li>
    <h2><span class="swatch" style="background: {{ p.colour }}"></span>{{ p.phrase }}</h2>
    <div class="pair">
      <figure>{{ picture(p.mask, "Mask of “" + p.phrase + "”") }}<figcaption>mask</figcaption></figure>
      <figure>{{ picture(p.uncertainty, "Uncertainty of the mask of “" + p.phrase + "”") }}
        <figcaption>uncertainty</figcaption></figure>
    </div>
    <p>{{ p.numbers }}</p>
  </li>
{% endfor %}
</ul>
<div class="scale">
  <p>Uncertainty: how far the masks from {{ noises }} noises disagree, as the standard deviation of a pixel's
    probability. Black pixels are certain.</p>
  <div class="bar" style="background: linear-gradient(to right, {{ heat }})"></div>
  <p class="ends"><span>0</span><span>{{ top }}</span></p>
</div>
{% if label_map %}
<figure class="medium">
  {{ picture(label_map, "The most probable phrase of each pixel, in the colours above") }}
  <figcaption>label map: the most probable phrase of each pixel, black for none</figcaption></figure>
{% endif %}
"""
)
DRAWN = (
    PICTURE
    + """
<h2>{{ prompt }}</h2>
<ul class="candidates">
{% for seed, frames in candidates %}
  <li><figure class="large">
    <a class="frames" href="{{ frames[-1] | url }}" target="_blank">
    {% for frame in chosen %}
      <img src="{{ frames[frame] | url }}" alt="{{ 'Drawn with seed ' ~ seed ~ ': ' ~ prompt if loop.last }}"
        style="animation-delay: {{ loop.index0 * seconds }}s">
    {% endfor %}
    </a>
    <figcaption>seed {{ seed }}</figcaption></figure></li>
{% endfor %}
</ul>
{% set seed, frames = candidates[0] %}
<h2>What the model expects the image of seed {{ seed }} to be after each step</h2>
<ul class="strip">
{% for frame in chosen %}
  <li><figure>{{ picture(frames[frame], "After step " ~ (frame + 1)) }}
    <figcaption>{{ frame + 1 }} of {{ frames | length }}</figcaption></figure></li>
{% endfor %}
</ul>
"""
)
NOISE = (
    PICTURE
    + """
<ul class="strip four">
{% for name, path in pictures %}
  <li><figure>{{ picture(path, name ~ " at noise level " ~ t) }}
    <figcaption>{{ name }}</figcaption></figure></li>
{% endfor %}
</ul>
<p>The mask is that of “{{ phrase }}”.</p>
"""
)
DENSITIES = """
<figure class="plot">
  {{ svg | safe }}
  <figcaption>
    <ul>{% for name in names %}<li class="line{{ loop.index0 }}">{{ name }}</li>{% endfor %}</ul>
    Density of the noise levels t in training, from 0 (clean) to 1 (noise), cut off at {{ top }}.
  </figcaption>
</figure>
"""


@dataclasses.dataclass(frozen=True)
class Shown:
    """A `Segmentation` and paths of pictures of it.

    Every result has files of its own: two visitors' pictures never share one that is being read.

    found: at the threshold that is shown.
    overlay, label_map: of all phrases.
    masks, uncertainty: of each phrase.
    top: the largest value of the uncertainties' colours.
    files: for download.
    """

    found: Segmentation
    overlay: str
    label_map: str
    masks: list[str]
    uncertainty: list[str]
    top: float
    files: list[str]


def examples(pairs: Sequence[tuple[str, str]]) -> str:
    """Buttons of (path of an image, phrases)."""
    return _render(EXAMPLES, examples=pairs)


def message(*lines: str, problem: bool = False) -> str:
    """Paragraphs; `problem`: about a mistake."""
    return _render(MESSAGE, lines=lines, problem=problem)


def summary(found: Segmentation) -> list[str]:
    """What was found, in sentences."""
    missing = [f"“{p}”" for p, yes in zip(found.phrases, found.found, strict=True) if not yes]
    many = len(found.phrases)
    if not missing:
        lines = ["Found a mask." if many == 1 else f"Found a mask for each of {many} phrases."]
    elif len(missing) == many:
        lines = [f"Nothing found for {_join(missing)}."]
    else:
        lines = [f"Found {many - len(missing)} of {many} phrases; nothing found for {_join(missing)}."]
    return lines + of_unknown(itertools.chain(*found.unknown_words))


def of_unknown(words: Iterable[str]) -> list[str]:
    """A sentence about words that the model cannot know, if there are any."""
    named = [f"“{word}”" for word in dict.fromkeys(words)]
    if not named:
        return []
    which, them = ("words", "them") if len(named) > 1 else ("word", "it")
    return [f"The model was not trained on the {which} {_join(named)}; what it makes of {them} means little."]


def overlay(shown: Shown) -> str:
    """The image with its masks."""
    phrases = [f"“{p}”" for p in shown.found.phrases]
    alt = f"The image, dark grey outside the masks of {_join(phrases)}"
    return _render(OVERLAY, path=shown.overlay, alt=alt, many=len(phrases) > 1)


def details(shown: Shown, noises: int) -> str:
    """Mask, uncertainty and numbers of each phrase, and the label map of several."""
    phrases = [
        {
            "phrase": row["phrase"],
            "colour": _colour(label_colour(i)),
            "mask": shown.masks[i],
            "uncertainty": shown.uncertainty[i],
            "numbers": _numbers(row),
        }
        for i, row in enumerate(shown.found.to_dict()["phrases"])
    ]
    return _render(
        DETAILS,
        phrases=phrases,
        noises=noises,
        heat=", ".join(map(_colour, HEAT)),
        top=f"{shown.top:.2f}",
        label_map=shown.label_map if len(phrases) > 1 else None,
    )


def drawn(candidates: Mapping[int, Sequence[str]], prompt: str, shown: int) -> str:
    """Images that emerge from `shown` of their frames, and these of the first image beside one another.

    `candidates`: paths of the frames of each image, by seed; all have as many.
    """
    images = list(candidates.items())
    chosen = sorted(set(np.linspace(0, len(images[0][1]) - 1, shown).round().astype(int).tolist()))
    return _render(DRAWN, candidates=images, chosen=chosen, prompt=prompt, seconds=FRAME_SECONDS)


def noise(pictures: Mapping[str, str], phrase: str, t: float) -> str:
    """Paths of pictures by name, at noise level `t`."""
    return _render(NOISE, pictures=list(pictures.items()), phrase=phrase, t=f"{t:g}")


def densities(lines: Mapping[str, np.ndarray]) -> str:
    """A plot of densities in equal bins of [0, 1]."""
    points = {
        name: [((i + 0.5) / len(values), min(float(value), MAX_DENSITY)) for i, value in enumerate(values)]
        for name, values in lines.items()
    }
    svg = plot(points, x_range=(0, 1))
    return _render(DENSITIES, svg=svg, names=list(lines), top=f"{MAX_DENSITY:g}")


def _render(template: str, **values: Any) -> str:
    # Gradio reads HTML as a template of its own, in which braces and dollars have a meaning.
    text = TEMPLATES.from_string(template).render(values)
    return text.strip().replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;")


def _url(path: str) -> str:
    return f"gradio_api/file={path}"


TEMPLATES.filters["url"] = _url


def _numbers(row: Mapping[str, Any]) -> str:
    if not row["area"]:
        return "Nothing found."
    left, top, right, bottom = row["box"]
    return (
        f"{row['area']:,} px ({row['share']:.1%}), in the box from {left}, {top} to {right}, {bottom}; "
        f"score {row['score']:.2f}"
    )


def _colour(rgb: tuple[int, int, int]) -> str:
    return "rgb({} {} {})".format(*rgb)


def _join(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))
