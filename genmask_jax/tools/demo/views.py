"""The HTML of the page's results. All texts are escaped."""

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
"""Upper limit of the plot of densities; the density of masks has a much higher peak."""
FRAME_SECONDS = 0.25
"""Time between two frames of a generated image."""

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
  <p>Uncertainty: the standard deviation of a pixel's probability over {{ noises }} noises. Black pixels are
    certain.</p>
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
CANDIDATES = (
    PICTURE
    + """
<h2>{{ prompt }}</h2>
<ul class="candidates">
{% for seed, frames in candidates %}
  <li><figure class="large">
    <a class="frames" href="{{ frames[-1] | url }}" target="_blank">
    {% for frame in frame_indices %}
      <img src="{{ frames[frame] | url }}" alt="{{ 'Drawn with seed ' ~ seed ~ ': ' ~ prompt if loop.last }}"
        style="animation-delay: {{ loop.index0 * seconds }}s">
    {% endfor %}
    </a>
    <figcaption>seed {{ seed }}</figcaption></figure></li>
{% endfor %}
</ul>
{% set seed, frames = candidates[0] %}
<h2>Predicted image of seed {{ seed }} after each step</h2>
<ul class="strip">
{% for frame in frame_indices %}
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
class ResultView:
    """A `Segmentation` and the paths of its pictures.

    Every result has its own files, so that results of different visitors cannot overwrite each other.

    result: the segmentation at the selected threshold.
    overlay: picture of all phrases.
    label_map: picture of all phrases.
    masks: one picture per phrase.
    uncertainty: one picture per phrase.
    colour_range: the uncertainty that has the brightest colour.
    files: files for download.
    """

    result: Segmentation
    overlay: str
    label_map: str
    masks: list[str]
    uncertainty: list[str]
    colour_range: float
    files: list[str]


def examples(pairs: Sequence[tuple[str, str]]) -> str:
    """Returns buttons for pairs (path of an image, phrases)."""
    return _render(EXAMPLES, examples=pairs)


def message(*lines: str, problem: bool = False) -> str:
    """Returns a message of one paragraph per line; `problem` marks it as an error."""
    return _render(MESSAGE, lines=lines, problem=problem)


def summarize(result: Segmentation) -> list[str]:
    """Returns sentences about which phrases were found."""
    missing = [f"“{p}”" for p, found in zip(result.phrases, result.found, strict=True) if not found]
    count = len(result.phrases)
    if not missing:
        lines = ["Found a mask." if count == 1 else f"Found a mask for each of {count} phrases."]
    elif len(missing) == count:
        lines = [f"Nothing found for {_join(missing)}."]
    else:
        lines = [f"Found {count - len(missing)} of {count} phrases; nothing found for {_join(missing)}."]
    return lines + describe_unknown_words(itertools.chain(*result.unknown_words))


def describe_unknown_words(words: Iterable[str]) -> list[str]:
    """Returns a sentence about words that the model was not trained on; [] if there are none."""
    quoted = [f"“{word}”" for word in dict.fromkeys(words)]
    if not quoted:
        return []
    noun, pronoun = ("words", "them") if len(quoted) > 1 else ("word", "it")
    return [f"The model was not trained on the {noun} {_join(quoted)}; results for {pronoun} are unreliable."]


def overlay(view: ResultView) -> str:
    """Returns the image with its masks."""
    phrases = [f"“{p}”" for p in view.result.phrases]
    alt = f"The image, dark grey outside the masks of {_join(phrases)}"
    return _render(OVERLAY, path=view.overlay, alt=alt, many=len(phrases) > 1)


def details(view: ResultView, noises: int) -> str:
    """Returns mask, uncertainty and numbers of each phrase, and the label map of several phrases."""
    phrases = [
        {
            "phrase": row["phrase"],
            "colour": _css_colour(label_colour(i)),
            "mask": view.masks[i],
            "uncertainty": view.uncertainty[i],
            "numbers": _describe_mask(row),
        }
        for i, row in enumerate(view.result.to_dict()["phrases"])
    ]
    return _render(
        DETAILS,
        phrases=phrases,
        noises=noises,
        heat=", ".join(map(_css_colour, HEAT)),
        top=f"{view.colour_range:.2f}",
        label_map=view.label_map if len(phrases) > 1 else None,
    )


def candidates(frames: Mapping[int, Sequence[str]], prompt: str, num_frames: int) -> str:
    """Returns animated images, and the frames of the first image in a row.

    Args:
        frames: paths of the frames of each image, by seed; all images have equally many.
        prompt: the prompt of the images.
        num_frames: number of frames to show, evenly spaced.
    """
    images = list(frames.items())
    indices = np.linspace(0, len(images[0][1]) - 1, num_frames).round().astype(int)
    frame_indices = sorted(set(indices.tolist()))
    return _render(
        CANDIDATES, candidates=images, frame_indices=frame_indices, prompt=prompt, seconds=FRAME_SECONDS
    )


def noise(pictures: Mapping[str, str], phrase: str, t: float) -> str:
    """Returns pictures at noise level `t`, given their paths by name."""
    return _render(NOISE, pictures=list(pictures.items()), phrase=phrase, t=f"{t:g}")


def densities(lines: Mapping[str, np.ndarray]) -> str:
    """Returns a plot of densities in equal bins of [0, 1]."""
    points = {
        name: [((i + 0.5) / len(values), min(float(value), MAX_DENSITY)) for i, value in enumerate(values)]
        for name, values in lines.items()
    }
    svg = plot(points, x_range=(0, 1))
    return _render(DENSITIES, svg=svg, names=list(lines), top=f"{MAX_DENSITY:g}")


def _render(template: str, **values: Any) -> str:
    # Gradio treats HTML as a template, in which braces and dollar signs are special.
    text = TEMPLATES.from_string(template).render(values)
    return text.strip().replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;")


def _url(path: str) -> str:
    return f"gradio_api/file={path}"


TEMPLATES.filters["url"] = _url


def _describe_mask(row: Mapping[str, Any]) -> str:
    if not row["area"]:
        return "Nothing found."
    left, top, right, bottom = row["box"]
    return (
        f"{row['area']:,} px ({row['share']:.1%}), in the box from {left}, {top} to {right}, {bottom}; "
        f"score {row['score']:.2f}"
    )


def _css_colour(rgb: tuple[int, int, int]) -> str:
    return "rgb({} {} {})".format(*rgb)


def _join(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))
