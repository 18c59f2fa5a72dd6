// Before anything is drawn: the theme that was chosen here, if one was; else the system's decides.
// Not a module, as those wait for the document.
(() => {
  try {
    const chosen = localStorage.getItem("theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be forbidden. Then the system decides.
  }
})();
