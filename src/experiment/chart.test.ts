import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { chart, meanLine } from "./chart.ts";

describe("a chart", () => {
  test("the mean line: the same points where the runs have them, else read between, as far as all reach", () => {
    const one = [{ x: 0, y: 0 }, { x: 2, y: 1 }]; // prettier-ignore
    expect(meanLine([one, one.map(({ x, y }) => ({ x, y: y / 2 }))])).toEqual([{ x: 0, y: 0 }, { x: 2, y: 0.75 }]); // prettier-ignore
    const other = [{ x: 1, y: 1 }, { x: 4, y: 1 }]; // prettier-ignore
    const mean = meanLine([one, other]);
    expect([mean[0].x, mean[mean.length - 1].x]).toEqual([1, 2]);
    expect(mean[0].y).toBeCloseTo(0.75, 12);
    expect(mean[mean.length - 1].y).toBeCloseTo(1, 12);
    expect(meanLine([])).toEqual([]);
  });

  test("every coordinate is a number inside the picture, whatever the values", () => {
    const point = fc.record({
      x: fc.double({ min: 0, max: 1e9, noNaN: true }),
      y: fc.double({ min: 0, max: 1, noNaN: true }),
    });
    const run = fc.array(point, { maxLength: 5 }).map((points) => points.sort((a, b) => a.x - b.x));
    const series = fc.record({ name: fc.string(), runs: fc.array(run, { maxLength: 3 }) });
    fc.assert(
      fc.property(fc.array(series, { minLength: 1, maxLength: 4 }), (all) => {
        const svg = chart(all, { title: "<t>", x: "x", y: "y" });
        expect(svg).not.toMatch(/[^"]*points="[^"]*(NaN|Infinity)|<t>/);
        const drawn = [...svg.matchAll(/points="([^"]*)"/g)].flatMap(([, list]) =>
          list.split(" ").filter((p) => p !== ""),
        );
        for (const [x, y] of drawn.map((pair) => pair.split(","))) {
          expect(Number(x)).toBeGreaterThanOrEqual(51.9);
          expect(Number(x)).toBeLessThanOrEqual(704.1);
          expect(Number(y)).toBeGreaterThanOrEqual(15.9);
          expect(Number(y)).toBeLessThanOrEqual(332.1);
        }
      }),
    );
  });
});
