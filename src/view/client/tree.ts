/// <reference lib="dom" />

/** Keys and search of a page of trees; folding is the browser's own. */
export function startTrees(page: Document): void {
  const search = page.getElementById("search");
  const count = page.getElementById("count");
  const boxes = Array.from(page.querySelectorAll<HTMLDetailsElement>("details.node"));
  if (!(search instanceof HTMLInputElement) || count === null) return;

  const visible = () =>
    boxes.filter((box) => {
      for (let up = box.parentElement; up !== null; up = up.parentElement) {
        if (up instanceof HTMLDetailsElement && !up.open) return false;
      }
      return true;
    });
  const head = (box: Element | null | undefined) => box?.querySelector<HTMLElement>(":scope > summary");
  const parent = (box: Element) => box.parentElement?.closest("details") ?? null;

  function find(wanted: string): void {
    const text = wanted.trim().toLowerCase();
    const found: HTMLDetailsElement[] = [];
    for (const box of boxes) {
      const own = `${head(box)?.textContent ?? ""} ${box.querySelector(":scope > .text")?.textContent ?? ""}`;
      const matches = text !== "" && own.toLowerCase().includes(text);
      box.classList.toggle("found", matches);
      if (matches) found.push(box);
    }
    for (const box of found) for (let up = parent(box); up !== null; up = parent(up)) up.open = true;
    if (count !== null) count.textContent = text === "" ? "" : `${found.length} steps`;
  }

  search.addEventListener("input", () => find(search.value));
  page.getElementById("fold")?.addEventListener("click", () => boxes.forEach((box) => (box.open = false)));
  page.getElementById("unfold")?.addEventListener("click", () => boxes.forEach((box) => (box.open = true)));
  page.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === search) {
      if (event.key === "Escape") search.blur();
      if (event.key === "Enter") head(page.querySelector(".found"))?.focus();
      return;
    }
    const box = page.activeElement?.closest<HTMLDetailsElement>("details.node");
    const move = (to: HTMLElement | null | undefined) => {
      event.preventDefault();
      to?.focus();
    };
    if (event.key === "/") return move(search);
    if (event.key === "n") {
      const found = boxes.filter((one) => one.classList.contains("found"));
      const after = box ? found.find((one) => (box.compareDocumentPosition(one) & 4) !== 0) : undefined;
      return move(head(after ?? found[0]));
    }
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const shown = visible();
      const at = box ? shown.indexOf(box) : -1;
      return move(head(shown[Math.max(0, at + (event.key === "ArrowDown" ? 1 : -1))]));
    }
    if (!box) return;
    if (event.key === "ArrowRight") {
      if (box.open) return move(head(box.querySelector("details.node")));
      event.preventDefault();
      box.open = true;
    } else if (event.key === "ArrowLeft") {
      if (!box.open) return move(head(parent(box)));
      event.preventDefault();
      box.open = false;
    }
  });
}
