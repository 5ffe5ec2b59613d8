// Times event -> changed picture, inside the page. Evaluated once with the selector of the part to watch.
//
// arm(type) takes the fingerprint of all pictures; the next event of that type starts the clock; from then on
// every animation frame compares. `first`: ms until a frame differed; `paint`: the frame after that one, when it
// has been painted; `last` and `changes`: the latest frame that differed from the one before, and how many did.
(rootSelector) => {
  if (window.qvizProbe) return;
  const probe = (window.qvizProbe = { armed: null, start: null });

  const pictures = (node, found = []) => {
    for (const element of node.querySelectorAll("*")) {
      if (element.shadowRoot) pictures(element.shadowRoot, found);
      // Not bqplot's canvases: they are for WebGL marks, and reading them costs 34 ms a key press, garbage apart.
      if (element.tagName === "CANVAS" && element.closest(".bqplot")) continue;
      if (["IMG", "CANVAS", "svg"].includes(element.tagName)) found.push(element);
    }
    return found;
  };

  const pixelHash = (canvas) => {
    const context = canvas.width && canvas.height ? canvas.getContext("2d") : null;
    if (!context) return "no pixels";
    let hash = 2166136261;
    for (const word of new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer)) {
      hash = Math.imul(hash ^ word, 16777619);
    }
    return String(hash);
  };

  // One string for all pictures of visible size, or null while one of them is still loading or there is none.
  probe.fingerprint = () => {
    const parts = [];
    for (const element of pictures(document.querySelector(rootSelector) || document.body)) {
      const box = element.getBoundingClientRect();
      if (box.width < 60 || box.height < 40) continue;
      if (element.tagName === "IMG" && !(element.complete && element.naturalWidth)) return null;
      if (element.tagName === "IMG") parts.push(element.src);
      else if (element.tagName === "CANVAS") parts.push(pixelHash(element));
      else parts.push(element.outerHTML);
    }
    return parts.length ? parts.join("\n") : null;
  };

  probe.arm = (type) => {
    const now = probe.fingerprint();
    Object.assign(probe, { armed: type, base: now, latest: now, start: null });
    Object.assign(probe, { first: null, paint: null, last: null, changes: 0, cost: 0 });
  };
  probe.still = (ms) => probe.paint !== null && performance.now() - probe.start - probe.last > ms;
  probe.timing = () => ({
    first_ms: probe.first, paint_ms: probe.paint, last_ms: probe.last, changes: probe.changes, probe_ms: probe.cost,
  });

  for (const type of ["keydown", "pointermove"]) {
    window.addEventListener(type, () => {
      if (probe.armed === type && probe.start === null) probe.start = performance.now();
    }, true);
  }

  const tick = () => {
    if (probe.start !== null) {
      const begin = performance.now();
      if (probe.first !== null && probe.paint === null) probe.paint = begin - probe.start;
      const now = probe.fingerprint();
      const end = performance.now();
      probe.cost = Math.max(probe.cost, end - begin);
      if (now !== null && now !== probe.latest) {
        probe.latest = now;
        probe.last = end - probe.start;
        probe.changes += 1;
        if (probe.first === null) probe.first = probe.last;
      }
    }
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}
