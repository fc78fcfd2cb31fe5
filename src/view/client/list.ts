/// <reference lib="dom" />

export interface ListOptions {
  /** The element that scrolls. */
  box: HTMLElement;
  /** Fills an element for a row. */
  draw(element: HTMLElement, row: number): void;
  onSelect(row: number): void;
}

/** A list of any length: only the rows in sight are elements. */
export function makeList(page: Document, { box, draw, onSelect }: ListOptions) {
  const space = page.createElement("div");
  space.className = "space";
  space.setAttribute("role", "presentation");
  box.append(space);
  let rows = new Int32Array(0);
  let selected = -1;
  let height = 36;
  let asked = false;
  /** Elements by their place in the list modulo the pool's size, and the row that each shows. */
  let pool: { element: HTMLElement; index: number; row: number }[] = [];

  function measure(): void {
    height = Number.parseFloat(getComputedStyle(box).getPropertyValue("--row")) || height;
    space.style.height = `${rows.length * height}px`;
    const wanted = Math.ceil(box.clientHeight / height) + 8;
    if (wanted > pool.length) {
      for (const { element } of pool) element.remove();
      pool = Array.from({ length: wanted }, () => {
        const element = page.createElement("div");
        element.setAttribute("role", "option");
        element.hidden = true;
        space.append(element);
        return { element, index: -1, row: -1 };
      });
    }
    for (const one of pool) one.index = -1;
  }

  function paint(): void {
    asked = false;
    const first = Math.max(0, Math.floor(box.scrollTop / height) - 4);
    const last = Math.min(rows.length, first + pool.length);
    for (const one of pool) if (one.index < first || one.index >= last) one.element.hidden = true;
    for (let index = first; index < last; index++) {
      const one = pool[index % pool.length];
      const { element } = one;
      if (one.index !== index || one.row !== rows[index]) {
        element.style.transform = `translateY(${index * height}px)`;
        element.id = `row-${rows[index]}`;
        element.setAttribute("aria-posinset", String(index + 1));
        element.setAttribute("aria-setsize", String(rows.length));
        one.index = index;
        one.row = rows[index];
        draw(element, one.row);
      }
      element.setAttribute("aria-selected", String(index === selected));
      element.hidden = false;
    }
  }

  function paintSoon(): void {
    if (asked) return;
    asked = true;
    requestAnimationFrame(paint);
  }

  function choose(index: number, reveal = true): void {
    if (rows.length === 0) return;
    selected = Math.min(rows.length - 1, Math.max(0, index));
    if (reveal) {
      const top = selected * height;
      if (top < box.scrollTop) box.scrollTop = top;
      else if (top + height > box.scrollTop + box.clientHeight) box.scrollTop = top + height - box.clientHeight;
    }
    paint();
    box.setAttribute("aria-activedescendant", `row-${rows[selected]}`);
    onSelect(rows[selected]);
  }

  box.addEventListener("scroll", paintSoon, { passive: true });
  space.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target.closest("[role=option]") : null;
    const one = pool.find(({ element }) => element === target);
    if (one !== undefined) choose(one.index, false);
  });
  new ResizeObserver(() => {
    measure();
    paint();
  }).observe(box);

  return {
    /** Shows these rows; the selected one stays so where it is among them. */
    show(next: Int32Array<ArrayBuffer>): void {
      const before = selected >= 0 ? rows[selected] : -1;
      rows = next;
      selected = before < 0 ? -1 : rows.indexOf(before);
      box.scrollTop = selected >= 0 ? Math.max(0, selected * height - box.clientHeight / 2) : 0;
      measure();
      paint();
    },
    /** Draws a row again, where it is in sight. */
    refresh(isWanted: (row: number) => boolean): void {
      for (const one of pool)
        if (one.index >= 0 && !one.element.hidden && isWanted(one.row)) draw(one.element, one.row);
    },
    choose,
    move: (by: number) => choose(selected < 0 ? 0 : selected + by),
    /** Moves to the next row, in this direction, for which it holds. */
    seek(step: 1 | -1, isWanted: (row: number) => boolean): void {
      for (let i = selected + step; i >= 0 && i < rows.length; i += step) if (isWanted(rows[i])) return choose(i);
    },
    chooseRow(row: number): boolean {
      const index = rows.indexOf(row);
      if (index >= 0) choose(index);
      return index >= 0;
    },
    page: () => Math.max(1, Math.floor(box.clientHeight / height) - 1),
    get length() {
      return rows.length;
    },
    get row() {
      return selected < 0 ? -1 : rows[selected];
    },
  };
}

export type List = ReturnType<typeof makeList>;
