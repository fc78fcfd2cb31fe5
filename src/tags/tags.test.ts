import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { allowedNext, type Fn, FUNCTIONS, G1, G2, type Grammar, TAG_TOKENS, withoutFunctions } from "./grammar.ts";
import { breaksPath, type Layout, parseStrict, parseTolerant, serialize, type Step, validate } from "./steps.ts";

const layouts: Layout[] = ["tokens", "text"];

/** Text of a step: anything without a function's tag, what looks like a tag included. */
const text = fc
  .string({ unit: fc.constantFrom(..."ab1 =<>/\n.é") })
  .filter((found) => found.trim() !== "")
  .map((found) => found.trim());

/** A walk through a grammar, to one of its ends. */
const walk = (grammar: Grammar) =>
  fc.infiniteStream(fc.tuple(fc.nat(), text)).map((choices) => {
    const steps: Step[] = [];
    for (const [choice, content] of choices) {
      const path = steps.map(({ fn }) => fn);
      const allowed = allowedNext(grammar, path);
      // Long enough: to the nearest end.
      const ends = allowed.filter((fn) => grammar.last.includes(fn));
      const among = steps.length > 12 && ends.length > 0 ? ends : allowed;
      steps.push({ fn: among[choice % among.length], text: content });
      const last = steps[steps.length - 1].fn;
      if (allowedNext(grammar, [last]).length === 0 || (grammar.last.includes(last) && steps.length > 12)) return steps;
    }
    return steps;
  });

describe("the grammars", () => {
  test("G1: how many children a search makes", () => {
    const children = (fn: "root" | Fn) => G1.next[fn].reduce((sum, branch) => sum + branch.children, 0);
    const parents: ("root" | Fn)[] = ["root", "clarify", "analysis", "subquestion", "next_step"];
    expect(parents.map(children)).toEqual([9, 7, 5, 3, 5]);
    expect(children("direct_answer")).toBe(0);
  });

  test("G2: what may follow what", () => {
    const table: [Fn[], string][] = [
      [[], "clarify analysis subquestion next_step"],
      [["clarify"], "analysis subquestion next_step direct_answer"],
      [["analysis"], "subquestion next_step direct_answer"],
      [["subquestion"], "next_step direct_answer"],
      [["next_step"], "next_step subquestion direct_answer verify output"],
      [["direct_answer"], "verify output"],
      [["verify"], "next_step subquestion direct_answer verify refine output"],
      [["refine"], "next_step subquestion direct_answer verify output"],
      [["output"], ""],
    ];
    for (const [path, next] of table) expect(allowedNext(G2, path).join(" ")).toBe(next);
  });

  test("without functions: nothing leads to them, the rest is as it was", () => {
    expect(withoutFunctions(G2, [])).toBe(G2);
    fc.assert(
      fc.property(fc.subarray(["clarify", "analysis", "subquestion", "verify", "refine"] as Fn[]), (fns) => {
        const fewer = withoutFunctions(G2, fns);
        for (const before of [[], ...FUNCTIONS.map((fn) => [fn])]) {
          expect(allowedNext(fewer, before)).toEqual(allowedNext(G2, before).filter((fn) => !fns.includes(fn)));
        }
      }),
    );
  });

  test("too few functions are refused", () => {
    expect(() => withoutFunctions(G2, ["next_step", "direct_answer"])).toThrow(
      /without next_step, direct_answer nothing may follow (analysis|subquestion)/,
    );
    expect(() => withoutFunctions(G2, ["clarify", "analysis", "subquestion", "next_step"])).toThrow(
      /nothing may follow the question; leave fewer functions out/,
    );
    expect(() => withoutFunctions(G2, ["output", "verify"])).toThrow(/nothing may follow direct_answer/);
    expect(() => withoutFunctions(G2, ["output"])).toThrow(/without output no path ends in output/);
  });

  test("sixteen tags", () => {
    expect(new Set(TAG_TOKENS).size).toBe(16);
    expect(TAG_TOKENS.slice(0, 2)).toEqual(["<clarify>", "</clarify>"]);
  });
});

describe.each([G1, G2])("paths of $name", (grammar) => {
  test.each(layouts)("every path that can be made validates, and is read as it was written (%s)", (layout) => {
    fc.assert(
      fc.property(walk(grammar), (steps) => {
        expect(validate(steps, grammar)).toBeUndefined();
        const written = serialize(steps, layout);
        expect(parseStrict(written, layout)).toEqual({ steps });
        const read = parseTolerant(written);
        expect(read.steps).toEqual(steps);
        expect(read.faults.filter(breaksPath)).toEqual([]);
      }),
    );
  });

  test("a function out of its place is refused, at that place", () => {
    fc.assert(
      fc.property(walk(grammar), fc.nat(), fc.constantFrom(...FUNCTIONS), (steps, at, fn) => {
        const place = at % steps.length;
        const path = steps.slice(0, place).map((step) => step.fn);
        fc.pre(!allowedNext(grammar, path).includes(fn));
        const wrong = steps.with(place, { fn, text: "x" });
        const violation = validate(wrong, grammar);
        expect(violation?.step).toBe(place);
        expect(violation?.reason).toMatch(
          new RegExp(`^${fn} cannot follow ${path.at(-1) ?? "the beginning"}; expected `),
        );
      }),
    );
  });

  test("text after the end, an end that is missing, steps without text and tags in a text are refused", () => {
    fc.assert(
      fc.property(walk(grammar), fc.constantFrom(...TAG_TOKENS), (steps, tag) => {
        const last = steps[steps.length - 1];
        if (allowedNext(grammar, [last.fn]).length === 0) {
          expect(validate([...steps, last], grammar)?.step).toBe(steps.length);
        }
        const begun = steps.slice(0, -1);
        expect(validate(begun, grammar, { complete: false })).toBeUndefined();
        if (begun.length === 0 || !grammar.last.includes(begun[begun.length - 1].fn)) {
          expect(validate(begun, grammar)).toMatchObject({
            step: begun.length,
            reason: expect.stringMatching(/^a path ends with/),
          });
        }
        const place = steps.length - 1;
        expect(validate(steps.with(place, { ...last, text: " \n" }), grammar)).toEqual({
          step: place,
          reason: `${last.fn} has no text`,
        });
        expect(validate(steps.with(place, { ...last, text: `a${tag}b` }), grammar)).toEqual({
          step: place,
          reason: `the text of ${last.fn} holds the tag ${tag}`,
        });
      }),
    );
  });
});

describe("what is not a path of G2", () => {
  const path = (...fns: Fn[]) => fns.map((fn) => ({ fn, text: "x" }));
  test.each([
    ["refine without verify", path("next_step", "refine", "output"), 1],
    ["clarify below the question", path("clarify", "clarify"), 1],
    ["clarify after analysis", path("analysis", "clarify"), 1],
    ["two outputs", path("next_step", "output", "output"), 2],
    ["a step after the output", path("next_step", "output", "verify"), 2],
    ["an answer at once", path("direct_answer", "output"), 0],
    ["no output", path("next_step", "direct_answer"), 2],
    ["nothing", [], 0],
  ])("%s", (_, steps, at) => {
    expect(validate(steps, G2)?.step).toBe(at);
  });
});

describe("texts that a policy may write", () => {
  const kinds = (written: string) => parseTolerant(written).faults.map(({ kind }) => kind);
  const fns = (written: string) => parseTolerant(written).steps.map((step) => `${step.fn}:${step.text}`);
  test.each([
    ["never closed", "<analysis>a", ["unclosed"], ["analysis:a"]],
    ["not closed before the next", "<analysis>a<next_step>b</next_step>", ["unclosed"], ["analysis:a", "next_step:b"]],
    ["nested", "<analysis>a<next_step>b</next_step>c</analysis>", ["nested", "outside"], ["analysis:a", "next_step:b"]],
    ["closed by another", "<verify>a</refine><output>b</output>", ["wrong close"], ["verify:a", "output:b"]],
    ["closed twice", "<verify>a</verify></verify>", ["stray close"], ["verify:a"]],
    ["unknown", "<think>a</think>", ["unknown", "unknown", "outside"], []],
    ["unknown inside", "<verify><b>a</b></verify>", ["unknown", "unknown"], ["verify:<b>a</b>"]],
    ["empty", "<verify> \n</verify><output>b</output>", ["empty"], ["output:b"]],
    [
      "text around",
      "Well: <verify>a</verify> so <output>b</output>.",
      ["outside", "outside", "outside"],
      ["verify:a", "output:b"],
    ],
    ["no path at all", "The answer is 4 < 5 > 3.", ["outside"], []],
    ["nothing", "", [], []],
  ])("%s", (_, written, faults, steps) => {
    expect(kinds(written)).toEqual(faults);
    expect(fns(written)).toEqual(steps);
    const whole = faults.every((kind) => kind === "unknown") && steps.length > 0;
    if (written !== "") expect(parseStrict(written, "tokens")).toHaveProperty(whole ? "steps" : "fault");
  });

  test("any text is read, and faults lie inside of it", () => {
    const piece = fc.oneof(fc.constantFrom(...TAG_TOKENS, "<x>", "</x>", "<", ">"), fc.string({ maxLength: 4 }));
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
        const written = pieces.join("");
        const { steps, faults } = parseTolerant(written);
        for (const { at } of faults) expect(at >= 0 && at <= written.length).toBe(true);
        for (const step of steps) expect(TAG_TOKENS.some((tag) => step.text.includes(tag))).toBe(false);
        const strict = parseStrict(written, "tokens");
        if ("steps" in strict) expect(serialize(strict.steps, "tokens")).toBe(written);
        else expect(strict.fault.reason).not.toBe("");
      }),
      { numRuns: 500 },
    );
  });

  test("blanks between blocks are refused where tokens stand for tags, and wanted where tags are text", () => {
    const steps: Step[] = [
      { fn: "next_step", text: "a" },
      { fn: "output", text: "b" },
    ];
    expect(serialize(steps, "text")).toBe("<next_step>\na\n</next_step>\n<output>\nb\n</output>\n");
    expect(serialize(steps, "tokens")).toBe("<next_step>a</next_step><output>b</output>");
    expect(parseStrict(serialize(steps, "text").trimEnd(), "text")).toEqual({ steps });
    expect(parseStrict(serialize(steps, "text"), "tokens")).toMatchObject({ fault: { kind: "outside" } });
    expect(parseStrict(serialize(steps, "tokens"), "text")).toMatchObject({ fault: { kind: "outside" } });
  });
});
