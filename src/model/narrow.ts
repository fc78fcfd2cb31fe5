/**
 * Rounds float32 to bfloat16 (to nearest, ties to even).
 * @returns the 16 bits of each number
 */
export function narrowToBf16(source: Float32Array): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  const out = new Uint16Array(source.length);
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i];
    // A NaN whose upper bits are all zero would round to infinity.
    out[i] = (b & 0x7fffffff) > 0x7f800000 ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
  return out;
}

/**
 * Rounds float32 to IEEE half precision (to nearest, ties to even); what is too large becomes infinite.
 * @returns the 16 bits of each number
 */
export function narrowToF16(source: Float32Array): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  const out = new Uint16Array(source.length);
  for (let i = 0; i < bits.length; i++) out[i] = halfBits(bits[i], source[i]);
  return out;
}

function halfBits(bits: number, value: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude < 0x38800000) return sign | roundToEven(Math.abs(value) * 2 ** 24);
  // Moves the exponent's bias from 127 to 15 and drops 13 bits; a carry out of the fraction rightly enters the exponent.
  const shifted = magnitude - 0x38000000;
  return sign | ((shifted + 0xfff + ((shifted >>> 13) & 1)) >>> 13);
}

/** Subnormal halves are multiples of 2^-24. */
function roundToEven(units: number): number {
  const floor = Math.floor(units);
  const rest = units - floor;
  return floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0);
}

/**
 * Quantises float32 to ggml's Q8_0: blocks of 32 with a half-precision scale d = max|x| / 127 and q = round(x / d), halves away from
 * zero; the quotient uses the scale before it is rounded to half precision (ggml's `quantize_row_q8_0_ref`).
 * @param source whole blocks
 * @returns 34 bytes a block: the scale, then 32 signed bytes
 */
export function quantiseQ8(source: Float32Array): Uint8Array {
  const count = source.length / 32;
  const scales = new Float32Array(count);
  const out = new Uint8Array(count * 34);
  const quantised = new Int8Array(out.buffer);
  for (let block = 0; block < count; block++) {
    const from = block * 32;
    let largest = 0;
    for (let i = from; i < from + 32; i++) largest = Math.max(largest, Math.abs(source[i]));
    const scale = Math.fround(largest / 127);
    scales[block] = scale;
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
    for (let i = 0; i < 32; i++) {
      const x = Math.fround(source[from + i] * inverse);
      quantised[block * 34 + 2 + i] = Math.sign(x) * Math.floor(Math.abs(x) + 0.5);
    }
  }
  const halves = narrowToF16(scales);
  for (let block = 0; block < count; block++) {
    out[block * 34] = halves[block] & 255;
    out[block * 34 + 1] = halves[block] >>> 8;
  }
  return out;
}
