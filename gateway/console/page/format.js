// Numbers as people read them.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** 12345 as "12,345", from a million on "1.23M". */
export const count = (n) => (Math.abs(n) < 1e6 ? WHOLE.format(n) : SHORT.format(n));

/** Something a second: two digits are enough. */
export function rate(n) {
  if (n === 0) return "0";
  if (n < 0.1) return "< 0.1";
  return n < 9.95 ? n.toFixed(1) : count(n);
}

/** A part of one as per cent; never 100 % for what is not all, nor 0 % for what is not nothing. */
export function percent(part) {
  if (part > 0 && part < 0.001) return "< 0.1 %";
  if (part < 1 && part > 0.999) return "> 99.9 %";
  const said = (part * 100).toFixed(1);
  return `${said.endsWith(".0") ? said.slice(0, -2) : said} %`;
}

/** Two digits that say something, or all before the point. */
const digits = (n) =>
  String(n < 0.995 ? Number(n.toFixed(2)) : n < 9.95 ? Number(n.toFixed(1)) : Math.round(n));

/** Seconds, with the unit that suits them. */
export function seconds(s) {
  if (s < 0.9995) return `${digits(s * 1e3)} ms`;
  return s < 9.95 ? `${digits(s)} s` : `${WHOLE.format(s)} s`;
}

/** A duration of `quantile`: of some only a bound is known. */
export const estimate = (found) =>
  found ? `${found.bound ? `${found.bound} ` : ""}${seconds(found.value)}` : "–";

/** How long ago, in words. */
export function ago(s) {
  if (s < 5) return "just now";
  if (s < 90) return `${Math.round(s)} s ago`;
  return s < 5400 ? `${Math.round(s / 60)} min ago` : `${Math.round(s / 3600)} h ago`;
}

/** Dollars; small sums with two digits that say something. */
export function dollars(usd) {
  if (usd === 0) return "$0";
  if (usd >= 1000) return `$${WHOLE.format(usd)}`;
  if (usd >= 0.995) return `$${usd.toFixed(2)}`;
  return usd < 1e-4 ? "< $0.0001" : `$${usd.toFixed(1 - Math.floor(Math.log10(usd)))}`;
}

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; n >= 1024 && unit < units.length - 1; unit += 1) n /= 1024;
  return `${unit === 0 || n >= 99.95 ? WHOLE.format(n) : n.toFixed(1)} ${units[unit]}`;
}

/** A difference, of which the power of ten matters; 0 is written so only if it is exactly 0. */
export function difference(d) {
  if (d === 0) return "0";
  return d < 0.01 ? d.toExponential(1) : d.toPrecision(2);
}

/** A cosine in two digits, short enough for a narrow column; no minus for what rounds to 0. */
export const hundredths = (c) =>
  c
    .toFixed(2)
    .replace(/^-0\.00$/, "0.00")
    .replace(/^(-?)0/, "$1")
    .replace("-", "\u2212");

/** A cosine near 1, with as many nines as it has; 1 is written so only if it is exactly 1. */
export function cosine(c) {
  if (c === 1) return "1";
  const gap = Math.abs(1 - c);
  return c.toFixed(gap > 0.01 ? 3 : Math.min(15, 1 - Math.floor(Math.log10(gap))));
}

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** A text of somebody's, short enough for one line. */
export const shortened = (text, most) =>
  text.length <= most ? text : `${[...text].slice(0, most - 1).join("")}…`;
