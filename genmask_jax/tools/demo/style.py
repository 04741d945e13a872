"""Theme, style sheet and icon of the page."""

from gradio import themes

CSS = """
.gradio-container { width: 100% !important; max-width: 1200px !important; margin: 0 auto !important; }
#phrases textarea, #prompt textarea { font-size: 16px; }
.tab-container button.selected { color: var(--primary-700) !important; }
.dark .tab-container button.selected { color: var(--primary-300) !important; }
@media (max-width: 400px) {  /* all tabs must be visible at 320 px */
  .tab-container button { padding: 0 5px !important; font-size: .875rem !important; }
}
figure { margin: 0; min-width: 0; }
.prose figure a { display: block; padding: 0; }
figcaption { font-size: .875rem; color: var(--body-text-color-subdued); margin-top: .25rem;
  overflow-wrap: anywhere; }
.prose figure img { display: block; width: 100%; margin: 0; border-radius: 6px; }
.prose figure.large img { width: auto; max-width: 100%; max-height: 60vh; margin: 0 auto; }
.prose h2 { font-size: 1rem !important; font-weight: 600; margin: .75rem 0 .5rem !important;
  overflow-wrap: anywhere; }
ul.examples, ul.phrases, ul.candidates, ul.strip, figure.plot ul { list-style: none; margin: 0; padding: 0; }
ul.examples li, ul.phrases li, ul.candidates li, ul.strip li { margin: 0; min-width: 0; }
ul.examples { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); }
ul.examples button { width: 100%; height: 100%; padding: .375rem; text-align: left; cursor: pointer;
  border: 1px solid var(--border-color-primary); border-radius: 6px; color: var(--body-text-color);
  background: var(--block-background-fill); display: flex; flex-direction: column; gap: .25rem; }
ul.examples button:hover { border-color: var(--color-accent); }
ul.examples img { width: 100%; aspect-ratio: 16 / 10; object-fit: cover; border-radius: 4px; }
ul.examples span { font-size: .8125rem; line-height: 1.3; font-weight: 400; }
a:focus-visible, ul.examples button:focus-visible, .gradio-container button:focus-visible
  { outline: 3px solid var(--color-accent) !important; outline-offset: 2px; }
.message { padding: .5rem .75rem; border-radius: 6px; border-left: 4px solid var(--color-accent);
  background: var(--block-background-fill); color: var(--body-text-color); }
.message p { margin: 0; overflow-wrap: anywhere; }
.message.problem { border-left-color: #dc2626; }
.message.problem::before { content: "Please check: "; font-weight: 600; }
.message.problem p { display: inline; }
#results { scroll-margin-top: 1rem; }
ul.phrases { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(260px, 100%), 1fr)); }
ul.phrases p { font-size: .875rem; margin: .25rem 0 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; }
.swatch { display: inline-block; width: .875em; height: .875em; margin-right: .4em; border-radius: 2px;
  vertical-align: -.05em; border: 1px solid var(--body-text-color); }
.scale { max-width: 30rem; margin: 1rem 0; font-size: .875rem; }
.scale p { margin: 0 0 .25rem; }
.scale .bar { height: .75rem; border-radius: 3px; border: 1px solid var(--body-text-color-subdued); }
.scale .ends { display: flex; justify-content: space-between; }
figure.medium { max-width: 260px; }
.prose figure a.frames { display: grid; width: min(100%, 60vh); margin: 0 auto; }
.prose figure.large .frames img { grid-area: 1 / 1; width: 100%; animation: appear .01s both; }
@keyframes appear { from { opacity: 0; } to { opacity: 1; } }
@media (prefers-reduced-motion: reduce) { .prose figure.large .frames img { animation: none; } }
ul.strip { display: grid; gap: .5rem; grid-template-columns: repeat(4, 1fr); }
ul.candidates { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); }
ul.strip.four { grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); }
figure.plot { max-width: 560px; }
figure.plot svg { width: 100%; height: auto; }
figure.plot text { font-size: 11px; fill: var(--body-text-color); }
figure.plot .grid { stroke: var(--border-color-primary); }
figure.plot { --line0: #4f46e5; --line1: #c2410c; }
.dark figure.plot { --line0: #a5b4fc; --line1: #fdba74; }
figure.plot polyline { fill: none; stroke: var(--line0); stroke-width: 2; }
figure.plot .line1 polyline { stroke: var(--line1); stroke-dasharray: 6 3; }
.prose figure.plot li.line0 { color: var(--line0); }
.prose figure.plot li.line1 { color: var(--line1); }
figure.plot li { margin: 0; font-weight: 600; }
figure.plot li.line0::before { content: "— "; }
figure.plot li.line1::before { content: "- - "; }
"""

SHOW_RESULTS = """() => {
  const results = document.querySelector('%s');
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  if (results.getBoundingClientRect().top > innerHeight / 2)
    results.scrollIntoView({behavior: still ? 'auto' : 'smooth'});
}"""
"""Scrolls to an element that is below the visible part of the page, as on a phone."""

TRIGGER_EXAMPLE = """element.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (button) trigger('click', {index: Number(button.dataset.index)});
});"""
"""Triggers a click event of the list, with an index, when a visitor activates the button of an example."""

ANNOUNCE_CHANGES = "element.setAttribute('role', 'status');"
"""Makes screen readers announce changes of the element."""

ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
<rect width="32" height="32" rx="6" fill="#4f46e5"/><path d="M16 0h10a6 6 0 0 1 6 6v20a6 6 0 0 1-6 6H16z"/>
<path d="M16 6a10 10 0 0 0 0 20z" fill="#facc15"/><path d="M16 6a10 10 0 0 1 0 20z" fill="#fff"/></svg>
"""
"""A yellow disc, half image and half mask."""


def theme() -> themes.Base:
    """Colours and local fonts. Every text has a contrast of at least 4.5 : 1."""
    soft = themes.Soft(primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["monospace"])
    return soft.set(
        background_fill_primary="*neutral_50",  # the default of Soft, which `set` would override
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*primary_700",
        block_title_text_color="*primary_700",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        checkbox_label_background_fill_selected="*primary_600",
        checkbox_label_background_fill_selected_dark="*primary_600",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_300",
    )
