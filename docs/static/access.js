/* What a keyboard and a screen reader need beyond the theme's markup: what scrolls can be reached, headings have a level. */
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("pre, article table.docutils").forEach((box) => box.setAttribute("tabindex", "0"));
  document.querySelectorAll('.caption[role="heading"]').forEach((caption) => caption.setAttribute("aria-level", "2"));
});
