import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { equalNumbers, findNumbers, parseDecimal } from "./number.ts";

/** An integer part and decimals of a number that is exact. */
const decimal = fc.record({
  negative: fc.boolean(),
  integer: fc.bigInt({ min: 0n, max: 10n ** 30n }),
  fraction: fc.stringMatching(/^[0-9]{0,6}$/),
});

function thousands(integer: bigint): string {
  return integer.toString().replace(/\B(?=(\d{3})+$)/g, ",");
}

describe("findNumbers", () => {
  test.each([
    ["She has 3 apples and 12 pears.", ["3", "12"]],
    ["It costs $1,234.50.", ["$1,234.50"]],
    ["1,234,567 people", ["1,234,567"]],
    ["items 1,23 and 4", ["1", "23", "4"]],
    ["10-5=5", ["10", "5", "5"]],
    ["10 - 5 = 5", ["10", "5", "5"]],
    ["the change is -7 or −8", ["-7", "−8"]],
    ["-$5 and $-6", ["-$5", "$-6"]],
    ["half is .5, or 0.50.", [".5", "0.50"]],
    ["1e-3 of 2E5", ["1e-3", "2E5"]],
    ["50%", ["50"]],
    ["(3) [4] 5kg", ["3", "4", "5"]],
    ["none here", []],
    ["9".repeat(1000), []],
  ])("%s", (text, numbers) => expect(findNumbers(text)).toEqual(numbers));

  test("takes linear time on long texts", () => {
    const started = performance.now();
    for (const text of ["1,".repeat(20_000), "1".repeat(200_000), "$-".repeat(50_000), "1,234".repeat(5_000)])
      findNumbers(text);
    expect(performance.now() - started).toBeLessThan(2000);
  });
});

describe("equalNumbers", () => {
  test.each([
    ["1,000", "1000", true],
    ["$18", "18.00", true],
    ["007", "7", true],
    ["-0", "0", true],
    ["-3", "3", false],
    ["+3", "3", true],
    [".5", "0.5", true],
    ["0.3333", "0.3333333333333333", false],
    ["0.333333", "0.3333333333333333", true],
    ["19.45", "19.450001", false],
    ["10000001", "10000002", false],
    ["1e3", "1000", true],
    ["5 apples", "5", false],
    ["", "0", false],
    ["1e9999", "1e9998", false],
    ["1 000", "1000", false],
  ])("%s and %s: %s", (a, b, equal) => {
    expect(equalNumbers(a, b)).toBe(equal);
    expect(equalNumbers(b, a)).toBe(equal);
  });

  test("ways of writing one number are equal; another number in the last place is not", () => {
    fc.assert(
      fc.property(decimal, fc.nat(3), fc.nat(3), ({ negative, integer, fraction }, before, behind) => {
        const sign = negative ? "-" : "";
        const plain = `${sign}${integer}${fraction === "" ? "" : `.${fraction}`}`;
        const padded = `${sign}${"0".repeat(before)}${integer}.${fraction}${"0".repeat(behind) || (fraction === "" ? "0" : "")}`;
        const grouped = `${sign}$${thousands(integer)}${fraction === "" ? "" : `.${fraction}`}`;
        expect(equalNumbers(plain, padded)).toBe(true);
        expect(equalNumbers(plain, grouped)).toBe(true);
        expect(equalNumbers(plain, `${sign}${integer + 1n}${fraction === "" ? "" : `.${fraction}`}`)).toBe(false);
        expect(findNumbers(`so it is ${grouped}.`)).toEqual([grouped]);
      }),
    );
  });

  test("value agrees with the language's own reading", () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (x) => {
        const read = parseDecimal(String(x));
        expect(read?.value).toBe(x === 0 ? 0 : x);
      }),
    );
  });
});
