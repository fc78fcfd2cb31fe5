/// <reference lib="dom" />
import type { Columns, KINDS, STOPS, VERDICTS } from "../columns.ts";
import type { ViewHead } from "../types.ts";
import type { makeCurves } from "./curves.ts";
import type { makeDetail } from "./detail.ts";
import type { makeDom } from "./dom.ts";
import type { makeList } from "./list.ts";
import type { makeReader } from "./reader.ts";
import type { makeSelect, Query } from "./rows.ts";
import type { makeTokens } from "./tokens.ts";

/** What the page's script is made of: functions that know nothing outside, handed to `startPage`. */
export interface ClientParts {
  makeDom: typeof makeDom;
  makeReader: typeof makeReader;
  makeSelect: typeof makeSelect;
  makeList: typeof makeList;
  makeTokens: typeof makeTokens;
  makeDetail: typeof makeDetail;
  makeCurves: typeof makeCurves;
  kinds: typeof KINDS;
  stops: typeof STOPS;
  verdicts: typeof VERDICTS;
  hidden: RegExp;
}

/** Reads the head, draws the curves and the list, and answers to what the reader of the page does. */
export async function startPage(parts: ClientParts): Promise<void> {
  const { kinds } = parts;
  const dom = parts.makeDom(document, parts.hidden);
  const { element, find, append } = dom;
  const reader = parts.makeReader(document);
  const { data: head, arrays } = await reader.read<ViewHead>("head");
  // The arrays are those that `toColumns` made.
  const columns = arrays as unknown as Columns;
  const size = columns.kind.length;
  const texts: string[] = Array.from({ length: size }, () => "");
  const ends: string[] = Array.from({ length: size }, () => "");
  const questions = head.problems.map(({ id, question = "" }) => `${id}\n${question}`.toLowerCase());
  const select = parts.makeSelect(columns, kinds, texts, questions);

  // Texts come in the background, block by block; rows that are in sight first.
  const firstRow: number[] = [];
  for (let i = 0; i < size; i++) firstRow[columns.block[i]] ??= i;
  const loaded = new Map<number, Promise<void>>();
  let ready = 0;
  function load(block: number): Promise<void> {
    const known =
      loaded.get(block) ??
      reader.texts(block).then((trees) => {
        for (let i = firstRow[block]; i < size && columns.block[i] <= block; i++) {
          if (columns.block[i] !== block) continue;
          const { segments } = trees[columns.tree[i]];
          if (columns.kind[i] === kinds.group) {
            ends[i] = segments[0].text;
            continue;
          }
          let whole = "";
          for (let s = columns.segment[i]; s >= 0; s = segments[s].parent) whole = segments[s].text + whole;
          texts[i] = whole.toLowerCase();
          ends[i] = segments[columns.segment[i]].text;
        }
        ready++;
      });
    loaded.set(block, known);
    return known;
  }
  async function loadAll(): Promise<void> {
    for (let block = 0; block < head.blocks; block++) {
      await load(block);
      // The page stays awake between blocks.
      if (block % 8 === 7) await new Promise((resolve) => setTimeout(resolve));
    }
    document.body.dataset.texts = "ready";
  }

  function title(row: number): string {
    const place = head.places[columns.place[row]];
    const at = place === undefined ? "" : `${place.stage} step ${place.step}, `;
    const id = head.problems[columns.problem[row]].id;
    const side = head.kind === "comparison" && columns.kind[row] !== kinds.group ? `, ${"AB"[columns.side[row]]}` : "";
    if (columns.kind[row] === kinds.group) return `${at}${id}`;
    if (columns.kind[row] === kinds.branch) return `${at}${id}, branch at segment ${columns.segment[row]}`;
    const round = roundOf(row);
    return `${at}${id}${side}${round > 1 ? `, round ${round}` : ""}, sample ${columns.number[row] + 1}`;
  }

  /** Of a sample that answers in rounds: which; 1 of any other. */
  function roundOf(row: number): number {
    let round = 1;
    for (let up = columns.up[row]; up >= 0; up = columns.up[up]) round += Number(columns.kind[up] === kinds.sample);
    return round;
  }

  const short = (value: number) => (Number.isNaN(value) ? "" : String(Number(value.toPrecision(3))));
  const start = (text: string) => (text.length > 160 ? `${text.slice(0, 160)}…` : text);
  const tail = (text: string) => (text.length > 110 ? `…${text.slice(-110)}` : text);
  const badges = ["", "right", "wrong", "unsure"];
  function badge(verdict: number, other: number): HTMLElement | undefined {
    if (verdict === 0) return undefined;
    const differ = other > 0 && other !== verdict;
    const label = `${badges[verdict]}${differ ? ` / ${badges[other]}` : ""}`;
    return element(
      "span",
      { class: `badge ${badges[verdict]}`, title: differ ? "strict / flexible" : "strict" },
      label,
    );
  }

  function drawRow(box: HTMLElement, row: number): void {
    const kind = columns.kind[row];
    box.className = `row ${["group", "sample", "branch"][kind]}`;
    box.style.setProperty("--depth", String(Math.min(12, columns.depth[row])));
    box.replaceChildren();
    const problem = head.problems[columns.problem[row]];
    if (!loaded.has(columns.block[row]))
      void load(columns.block[row]).then(() => list.refresh((other) => columns.block[other] === columns.block[row]));
    const place = head.places[columns.place[row]];
    if (kind === kinds.group) {
      const flip = ["", "A better", "B better"][columns.flip[row]];
      append(
        box,
        element("span", { class: "name" }, place === undefined ? problem.id : `${place.stage} ${place.step}`),
        element("bdi", { class: "snippet" }, start(problem.question ?? (ends[row] || problem.id))),
        columns.right[row] < 0 || head.kind === "comparison"
          ? undefined
          : element("span", { class: "soft" }, `${columns.right[row]}/${columns.number[row]}`),
        flip === "" ? undefined : element("span", { class: "badge unsure" }, flip),
        head.kind === "comparison"
          ? undefined
          : element("span", { class: "number", title: "mean reward" }, short(columns.reward[row])),
      );
      return;
    }
    const round = roundOf(row);
    const name =
      kind === kinds.branch
        ? "branch"
        : `${round > 1 ? `round ${round} ` : ""}${head.kind === "comparison" ? `${"AB"[columns.side[row]]} ` : "#"}${columns.number[row] + 1}`;
    append(
      box,
      element(
        "span",
        { class: "name" },
        columns.depth[row] === 0 || query.sort !== "order"
          ? `${place === undefined ? problem.id : `${place.stage} ${place.step}`} ${name}`
          : name,
      ),
      element("bdi", { class: "snippet" }, tail(ends[row])),
      columns.error[row] === 1 ? element("span", { class: "badge wrong" }, "error") : undefined,
      columns.stop[row] === parts.stops.indexOf("length")
        ? element("span", { class: "badge unsure", title: "cut at the length limit" }, "cut")
        : undefined,
      badge(columns.strict[row], columns.flexible[row]),
      element("span", { class: "number soft", title: "tokens" }, String(columns.tokens[row])),
      element("span", { class: "number", title: "reward" }, short(columns.reward[row])),
    );
  }

  const query: Query = {
    words: [],
    place: -1,
    low: NaN,
    high: NaN,
    verdict: "all",
    stop: "all",
    flip: "all",
    sort: "order",
    down: false,
  };
  const box = find("list");
  const pane = find("detail");
  const tokens = parts.makeTokens(dom, head);
  const detail = parts.makeDetail({ dom, head, columns, kinds, reader, tokens, place: pane, go, title });
  const list = parts.makeList(document, { box, draw: drawRow, onSelect: (row) => void detail.show(row) });
  const search = find<HTMLInputElement>("search");

  let asked = 0;
  async function filter(): Promise<void> {
    const mine = ++asked;
    query.words = search.value
      .toLowerCase()
      .split(/\s+/)
      .filter((word) => word !== "");
    if (query.words.length > 0 && ready < head.blocks) {
      find("count").textContent = "reading texts…";
      await loadAll();
      if (mine !== asked) return;
    }
    detail.search(query.words);
    const { rows, samples } = select(query);
    list.show(rows);
    find("count").textContent = `${samples.toLocaleString("en-US")} of ${head.samples.toLocaleString("en-US")} samples`;
    find("none").hidden = samples > 0;
  }

  /** Shows a row, though the filters hide it. */
  function go(row: number): void {
    if (!list.chooseRow(row)) void detail.show(row);
  }

  const number = (id: string) => {
    const { value } = find<HTMLInputElement>(id);
    return value.trim() === "" ? NaN : Number(value);
  };
  const choice = <T extends string>(id: string) => find<HTMLSelectElement>(id).value as T;
  function read(): void {
    query.place = Number(choice("place"));
    [query.low, query.high] = [number("low"), number("high")];
    query.verdict = choice("verdict");
    query.stop = choice("stop");
    query.flip = choice("flip");
    const [sort, direction] = choice("sort").split(" ");
    query.sort = sort as Query["sort"];
    query.down = direction === "down";
    void filter();
  }
  const form = find<HTMLFormElement>("filters");
  form.addEventListener("input", read);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(read));

  const places = find<HTMLSelectElement>("place");
  places.append(
    ...head.places.map(({ stage, step, samples }, i) =>
      element("option", { value: String(i) }, `${stage} ${step} (${samples})`),
    ),
  );
  const painted = find<HTMLSelectElement>("paint");
  const formulas = head.problems.some(({ html }) => html !== undefined);
  painted.append(
    ...head.series.map((series) => element("option", { value: series }, tokens.named(series))),
    element("option", { value: "plain" }, "no colour"),
    element("option", { value: "formulas" }, "no colour, formulas set"),
  );
  painted.value = head.kind !== "run" && formulas ? "formulas" : (head.series[0] ?? "plain");
  void detail.paint(painted.value);
  painted.addEventListener("change", () => void detail.paint(painted.value));

  /** The table of a step's numbers, as the run folder has them. */
  let line = head.lines.step.length - 1;
  function showLine(next: number): void {
    line = Math.min(head.lines.step.length - 1, Math.max(0, next));
    if (line < 0) return;
    curves.point(line);
    const [stage, step] = [head.lines.stage[line], head.lines.step[line]];
    find("at").textContent = `${stage}, step ${step}`;
    const rows = head.metrics.flatMap(({ name, values }) => {
      const value = values[line];
      return value === null
        ? []
        : [element("div", {}, element("dt", {}, name), element("dd", { "data-metric": name }, String(value)))];
    });
    find("numbers").replaceChildren(...rows);
    const alarms = head.alarms.filter((alarm) => alarm.line === line);
    find("raised").replaceChildren(
      ...alarms.map(({ metric, value, text }) => element("li", { class: "wrong" }, `${metric} ${value}: ${text}`)),
    );
    const place = head.places.findIndex((one) => one.stage === stage && one.step === step);
    const samples = find<HTMLButtonElement>("samples-at");
    samples.hidden = place < 0;
    samples.onclick = () => {
      places.value = String(place);
      read();
      box.focus();
    };
  }
  const curves = parts.makeCurves(dom, head, (next) => {
    showLine(next);
    find<HTMLDetailsElement>("step").open = true;
  });
  if (head.lines.step.length > 0) {
    const stage = find<HTMLSelectElement>("stage");
    stage.append(...curves.stages.map((name) => element("option", { value: name }, name)));
    find("stages").hidden = curves.stages.length < 2;
    const draw = () => {
      curves.draw(find("curves"), find<HTMLDetailsElement>("more"), find("rest"), stage.value);
      curves.point(line);
    };
    stage.addEventListener("change", draw);
    draw();
    find("earlier").addEventListener("click", () => showLine(line - 1));
    find("later").addEventListener("click", () => showLine(line + 1));
    showLine(line);
  }

  const colours = () => {
    painted.selectedIndex = (painted.selectedIndex + 1) % painted.options.length;
    void detail.paint(painted.value);
  };
  const keys: Record<string, () => void> = {
    ArrowDown: () => list.move(1),
    ArrowUp: () => list.move(-1),
    PageDown: () => list.move(list.page()),
    PageUp: () => list.move(-list.page()),
    Home: () => list.choose(0),
    End: () => list.choose(list.length - 1),
    ArrowRight: () => list.seek(1, (row) => columns.depth[row] === 0),
    ArrowLeft: () => list.seek(-1, (row) => columns.depth[row] === 0),
    Enter: () => pane.focus(),
  };
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || keys[event.key] === undefined) return;
    event.preventDefault();
    keys[event.key]();
  });
  const help = find<HTMLDialogElement>("help");
  find("ask").addEventListener("click", () => help.showModal());
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (event.key === "Escape") {
      box.focus();
      return;
    }
    if (typing) {
      if (event.key === "Enter" && event.target === search) box.focus();
      return;
    }
    const global: Record<string, () => void> = {
      "/": () => {
        search.focus();
        search.select();
      },
      "?": () => help.showModal(),
      c: colours,
    };
    if (global[event.key] === undefined) return;
    event.preventDefault();
    global[event.key]();
  });

  if (head.kind === "comparison" && columns.flip.some((flip) => flip > 0)) {
    find<HTMLSelectElement>("flip").value = "flipped";
    query.flip = "flipped";
  }
  await filter();
  document.body.dataset.state = "ready";
  setTimeout(() => void loadAll());
}
