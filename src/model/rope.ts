import type { ModelConfig } from "./types.ts";

/** Angular frequencies (Su et al. 2021), with Llama 3's scaling of the long wavelengths where the config has it. */
export function ropeFrequencies(config: ModelConfig): Float64Array {
  const half = config.headDim / 2;
  const scaling = config.ropeScaling;
  return Float64Array.from({ length: half }, (_, i) => {
    const frequency = config.ropeTheta ** (-i / half);
    if (!scaling) return frequency;
    const wavelength = (2 * Math.PI) / frequency;
    const { factor, lowFreqFactor, highFreqFactor, originalMaxContext } = scaling;
    if (wavelength < originalMaxContext / highFreqFactor) return frequency;
    if (wavelength > originalMaxContext / lowFreqFactor) return frequency / factor;
    const smooth = (originalMaxContext / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
    return (1 - smooth) * (frequency / factor) + smooth * frequency;
  });
}

export type RopeSetting = keyof NonNullable<ModelConfig["ropeScaling"]>;

/** Where rifft keeps Llama 3's settings in a GGUF file, beside the divisors that other programs read. */
export const ropeScalingKeys: Record<RopeSetting, string> = {
  factor: "rifft.rope_scaling.factor",
  lowFreqFactor: "rifft.rope_scaling.low_freq_factor",
  highFreqFactor: "rifft.rope_scaling.high_freq_factor",
  originalMaxContext: "rifft.rope_scaling.original_context_length",
};

/** What Llama 3's scaling divides each angular frequency by, [headDim / 2]. */
export function ropeDivisors(config: ModelConfig): Float32Array {
  const scaled = ropeFrequencies(config);
  return Float32Array.from(ropeFrequencies({ ...config, ropeScaling: undefined }), (plain, i) => plain / scaled[i]);
}
