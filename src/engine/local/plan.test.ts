import { describe, expect, test } from "vitest";
import { families, fixture, lora } from "../../../test/local.ts";
import { loadModelFiles } from "../../model/load.ts";
import type { ModelSpec } from "../types.ts";
import { type MemoryPlan, planMemory } from "./plan.ts";

const trainings: [string, ModelSpec["train"]][] = [
  ["nothing trained", "none"],
  ["LoRA", lora],
  ["full", "full"],
];

describe.each(families.flatMap((family) => trainings.map(([name, train]) => [family, name, train] as const)))(
  "the memory plan: %s, %s",
  (family, _, train) => {
    test("fits its budget, spends less as the budget falls, and says what it chose or what to change", async () => {
      const base = fixture(family);
      const files = await loadModelFiles(base);
      const spec: ModelSpec = { base, train };
      let last: MemoryPlan | null = null;
      let refused = "";
      const seen = new Set<string>();
      for (let gb = 1.8; gb > 0 && !refused; gb *= 0.998) {
        try {
          const plan = planMemory(files, spec, gb);
          expect(plan.bytes).toBeLessThanOrEqual(gb * 1e9);
          if (last) {
            expect(plan.bytes).toBeLessThanOrEqual(last.bytes);
            expect(plan.rows).toBeLessThanOrEqual(last.rows);
          }
          expect(plan.text).toContain(plan.keep === "all" ? "residuals kept" : "computed again");
          if (train === "full") expect(plan.keepStored).toBe(false);
          seen.add(plan.keep);
          last = plan;
        } catch (error) {
          refused = (error as Error).message;
        }
      }
      expect(seen.has("all")).toBe(true);
      expect(refused).toMatch(/not enough memory: .* GB.*raise `memory`/);
    });
  },
);
