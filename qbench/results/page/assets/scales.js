// From values to places on an axis, and round numbers to write there.

/** Return a scale: a function from a value to a place, with its ticks. */
function scale(values, [from, to], isLog = false, padding = 0.06) {
  const usable = values.filter((value) => Number.isFinite(value) && (!isLog || value > 0));
  let low = usable.length ? Math.min(...usable) : isLog ? 1 : 0;
  let high = usable.length ? Math.max(...usable) : isLog ? 10 : 1;
  const bend = isLog ? Math.log10 : (value) => value;
  const straighten = isLog ? (value) => 10 ** value : (value) => value;
  let first = bend(low);
  let last = bend(high);
  if (last - first < 1e-12) {
    const room = isLog ? 0.5 : Math.abs(first) * 0.5 || 1;
    first -= room;
    last += room;
  }
  const room = (last - first) * padding;
  first -= room;
  last += room;
  low = straighten(first);
  high = straighten(last);
  const place = (value) => from + ((bend(value) - first) / (last - first)) * (to - from);
  return Object.assign(place, { low, high, isLog, ticks: isLog ? logTicks(low, high) : linearTicks(low, high) });
}

function linearTicks(low, high, count = 6) {
  const rough = (high - low) / count;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * unit).find((each) => each >= rough);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high * (1 + 1e-12) + 1e-12; n += 1) found.push(n * step);
  return found;
}

/** Return powers of ten; where they are few, also what lies between them. */
function logTicks(low, high) {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  const decades = Math.log10(high) - Math.log10(low);
  if (decades < 0.65) return linearTicks(low, high, 8);
  const every = Math.max(1, Math.ceil(decades / 7));
  const within = decades <= 1.2 ? [1, 2, 3, 4, 5, 7] : decades <= 3 ? [1, 2, 5] : [1];
  const found = [];
  for (let power = first; power <= last; power += every) {
    for (const times of within) {
      const value = times * 10 ** power;
      if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) found.push(value);
    }
  }
  return found;
}

/** Return a tick in the fewest digits. */
function tickText(value) {
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1e5 || size < 1e-3) {
    const power = Math.floor(Math.log10(size) + 1e-9);
    const times = Number((value / 10 ** power).toPrecision(3));
    const raised = String(power).replace(/[-\d]/g, (digit) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(digit)]);
    return times === 1 ? `10${raised}` : `${times}·10${raised}`;
  }
  return String(Number(value.toPrecision(3)));
}
