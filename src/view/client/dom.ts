/// <reference lib="dom" />

/** Makes elements. Whatever comes as a string is text: nothing here reads markup but `markup`. */
export function makeDom(page: Document, hidden: RegExp) {
  type Child = Node | string | number | undefined;

  function element<T extends keyof HTMLElementTagNameMap>(
    name: T,
    attributes: Record<string, string> = {},
    ...children: Child[]
  ): HTMLElementTagNameMap[T] {
    const made = page.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    append(made, ...children);
    return made;
  }

  function append(parent: Element, ...children: Child[]): void {
    for (const child of children) {
      if (child === undefined) continue;
      if (typeof child === "object") parent.appendChild(child);
      else text(parent, String(child));
    }
  }

  /** Text whose characters that hide or turn text around are named. */
  function text(parent: Element, content: string): void {
    let from = 0;
    for (const match of content.matchAll(hidden)) {
      if (match.index > from) parent.append(content.slice(from, match.index));
      const code = (match[0].codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
      const named = page.createElement("span");
      named.className = "hidden";
      named.textContent = `U+${code}`;
      parent.append(named);
      from = match.index + match[0].length;
    }
    if (from < content.length) parent.append(content.slice(from));
  }

  /** Formulas that were rendered when the page was made: escaped text and MathML. */
  function markup(html: string, name: "div" | "bdi" = "div"): HTMLElement {
    const made = page.createElement(name);
    made.innerHTML = html;
    return made;
  }

  function find<T extends HTMLElement>(id: string): T {
    const found = page.getElementById(id);
    if (found === null) throw new Error(`the page has no element ${id}`);
    // The page's own markup: what has this id is known.
    return found as T;
  }

  function svg(name: string, attributes: Record<string, string | number> = {}, content?: string): SVGElement {
    const made = page.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
    if (content !== undefined) made.textContent = content;
    return made;
  }

  return { element, append, text, markup, find, svg };
}

export type Dom = ReturnType<typeof makeDom>;
