// The colours of heat and objects.

function srgb(lightness, a, b) {
  const l = (lightness + 0.39633778 * a + 0.21580376 * b) ** 3;
  const m = (lightness - 0.105561346 * a - 0.06385417 * b) ** 3;
  const s = (lightness - 0.08948418 * a - 1.2914855 * b) ** 3;
  const linear = [
    4.0767417 * l - 3.3077116 * m + 0.23096994 * s,
    -1.268438 * l + 2.6097574 * m - 0.3413194 * s,
    -0.0041960863 * l - 0.7034186 * m + 1.7076147 * s,
  ];
  return linear.map((x) => {
    const value = x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055;
    return Math.max(0, Math.min(255, Math.round(value * 255)));
  });
}

/** The colour of a share from 0 to 1, as on the pictures of the command line. */
export function heat(t) {
  const along = (from, to) => from + (to - from) * t;
  const chroma = along(0.08, 0.13) + 0.3 * t * (1 - t);
  const hue = (along(285, 465) * Math.PI) / 180;
  return srgb(along(0.16, 0.94), chroma * Math.cos(hue), chroma * Math.sin(hue));
}

/** The colour of an object, by its number. Neighbours in the list differ most. */
export function objectColor(index) {
  const hue = index * 2.399963;
  const lightness = 0.68 + 0.1 * Math.sin(index * 1.7);
  return srgb(lightness, 0.14 * Math.cos(hue), 0.14 * Math.sin(hue));
}

export const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
