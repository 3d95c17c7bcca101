// ---- search by letters and by meaning ----------------------------------------------------------
const M = DATA.meaning, words = M.words.split(" "), place = new Map(words.map((word, i) => [word, i]));
const wordVectors = new Int8Array(bytes(M.vectors).buffer), textVectors = new Int8Array(bytes(M.textVectors).buffer);
const textPlace = new Map(M.texts.map((text, i) => [text, i]));
const texts = u => [u.t, ...(u.se || []).map(sense => sense[0])].join(" ");
const haystack = units.map(u => (texts(u) + " " + name(u)).toLowerCase());
// One form for a noun and its plural; a phrase is said where its words follow one another.
const form = word => Object.hasOwn(M.forms, word) ? M.forms[word] : word;
const said = text => " " + text.toLowerCase().split(/[^\p{L}\p{N}]+/u).filter(Boolean).map(form).join(" ") + " ";
const spoken = units.map(u => [u.t, ...(u.se || []).map(sense => sense[0])].map(said));
const SMALL = new Set(M.small);

function row(vectors, i) { return vectors.subarray(i * M.dims, (i + 1) * M.dims); }
function centred(v) { return Float64Array.from(v, (x, i) => x - M.centre[i]); }
function product(a, b) { return a.reduce((sum, x, i) => sum + x * b[i], 0); }
function known(word) {  // place of a word or of its singular, or undefined
  const forms = [word, word.replace(/s$/, ""), word.replace(/es$/, ""), word.replace(/ies$/, "y")];
  return forms.map(form => place.get(form)).find(found => found !== undefined);
}
function distance(a, b) {  // letters to change, insert, leave out or swap with the next
  let before = [], line = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(line[j] + 1, next[j - 1] + 1, line[j - 1] + (a[i - 1] !== b[j - 1])));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        next[j] = Math.min(next[j], before[j - 2] + 1);
    }
    [before, line] = [line, next];
  }
  return line[b.length];
}
function nearLetters(word) {
  const most = word.length > 5 ? 2 : word.length > 3 ? 1 : 0;
  let best, least = most + 1;
  for (const other of words) {
    if (Math.abs(other.length - word.length) >= least) continue;
    const d = distance(word, other);
    if (d < least) { best = other; least = d; }
  }
  return best;
}
function meaningOf(query) {  // the vector of what was typed, and what is to be told about it
  if (textPlace.has(query)) return { vector: centred(row(textVectors, textPlace.get(query))), told: "" };
  const found = [], took = [], unknown = [];
  for (const word of query.split(/[^\p{L}\p{N}]+/u)) {
    if (!word || SMALL.has(word)) continue;
    let at = known(word);
    if (at === undefined) {
      const other = nearLetters(word);
      if (other) { at = place.get(other); took.push(`“${word}” as “${other}”`); } else unknown.push(`“${word}”`);
    }
    if (at !== undefined) found.push(row(wordVectors, at));
  }
  const told = [];
  if (took.length) told.push(`Took ${took.join(", ")}.`);
  if (unknown.length) told.push(`The meaning of ${unknown.join(", ")} is not known to this page: ${found.length ? "left out" : "searched by letters alone"}.`);
  if (!found.length) return { vector: null, told: told.join(" ") };
  const sum = new Float64Array(M.dims);
  for (const v of found) centred(v).forEach((x, i) => { sum[i] += x; });
  return { vector: sum, told: told.join(" ") };
}
function likeness(vector) {  // cosine of every text of the run, less what words have in common
  return M.texts.map((_, t) => {
    const text = centred(row(textVectors, t));
    return product(text, vector) / Math.max(1e-9, Math.sqrt(product(text, text) * product(vector, vector)));
  });
}
