// Owns how words that change are written: into the text node that is there. `textContent =` takes that node away and brings
// another, and WebKit may go on painting the one that went.

export function write(node, words) {
  const text = node.firstChild;
  if (text === null || text !== node.lastChild || text.nodeType !== 3) node.textContent = words;
  else if (text.data !== words) text.data = words;
}
