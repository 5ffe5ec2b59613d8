// Times event -> changed picture, inside the page. Evaluated once with the selector of the part to watch.
//
// arm(type) takes the fingerprint of all pictures; the next event of that type starts the clock; from then on
// every frame is compared in a task that runs right after it was painted. (The next animation frame, 17 ms later,
// is too late: what bqplot draws, it draws in an animation frame too.) `first`: ms until a frame differed; `paint`:
// the start of the frame after that one; `last` and `changes`: the latest frame that differed from the one before,
// and how many did. waiting() counts the messages to the kernel that it has not dealt with yet; ipywidgets sends
// what it held back as soon as the one before is done. `came`: what the kernel's messages to widgets are.
// hold(handle, forth, back, ms) presses a key of a slider 30 times a second, as one that is held, turning round at
// the ends, and returns how many pictures a second were painted.
(rootSelector) => {
  if (window.qvizProbe) return;
  const probe = (window.qvizProbe = { armed: null, start: null });

  // The outermost ones: what is inside a picture is part of it. Not bqplot's canvases: they are for WebGL marks, and
  // reading them costs 34 ms a key press, garbage apart.
  const PICTURE = "svg, img, canvas";
  const pictures = (node, found = []) => {
    for (const element of node.querySelectorAll("*")) {
      if (element.shadowRoot) pictures(element.shadowRoot, found);
      if (element.tagName === "CANVAS" && element.closest(".bqplot")) continue;
      if (element.matches(PICTURE) && !element.parentElement?.closest("svg")) found.push(element);
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

  // Asking which pictures there are and how large, and reading them all, takes 3 to 9 ms of the page's time: it is
  // asked anew only where one comes, goes or may have another size, and only the pictures that were touched are read.
  const root = () => document.querySelector(rootSelector) || document.body;
  const holds = (node) => node.nodeType === 1 && (node.matches(PICTURE) || node.querySelector(PICTURE) !== null);
  let stale = true, shown = [], texts = new Map(), known = null;
  const see = (records) => {
    const within = root();
    for (const { target, type, addedNodes, removedNodes } of records) {
      const element = target.nodeType === 1 ? target : target.parentElement;
      if (!element || !within.contains(element)) continue;
      const picture = element.closest("svg, img");
      if (picture) texts.delete(shown.find((one) => one.contains(picture)));
      else stale ||= type === "childList" ? [...addedNodes, ...removedNodes].some(holds) : holds(element);
    }
  };
  const observer = new MutationObserver(see);
  const watched = { subtree: true, childList: true, attributes: true, characterData: true };
  observer.observe(document.body, watched);

  const read = (picture) => {
    if (picture.tagName === "IMG") return picture.complete && picture.naturalWidth ? picture.src : null;
    return picture.tagName === "CANVAS" ? pixelHash(picture) : picture.outerHTML;
  };

  // One string for all pictures of visible size, or null while one of them is still loading or there is none.
  probe.fingerprint = () => {
    see(observer.takeRecords());
    if (stale) {
      const large = (box) => box.width >= 60 && box.height >= 40;
      shown = pictures(root()).filter((picture) => large(picture.getBoundingClientRect()));
      texts = new Map();
      stale = false;
    }
    let same = known !== null;
    for (const picture of shown) {
      const silent = picture.tagName === "CANVAS" || picture.getRootNode() !== document;
      if (!silent && texts.get(picture)) continue;
      texts.set(picture, read(picture));
      same = false;
    }
    if (!same) {
      const all = shown.map((picture) => texts.get(picture));
      known = all.length && all.every((text) => text) ? all.join("\n") : null;
    }
    return known;
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

  const sent = new Set();
  const kernel = window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel;
  kernel?.anyMessage.connect((_, { msg, direction }) => {
    if (direction === "send" && msg.header.msg_type === "comm_msg") sent.add(msg.header.msg_id);
    if (direction === "recv" && msg.header.msg_type === "comm_msg") probe.came.push(msg.content.data.method);
    if (msg.header.msg_type === "status" && msg.content.execution_state === "idle") sent.delete(msg.parent_header.msg_id);
  });
  probe.waiting = () => sent.size;
  probe.came = [];

  for (const type of ["keydown", "pointermove"]) {
    window.addEventListener(type, () => {
      if (probe.armed === type && probe.start === null) probe.start = performance.now();
    }, true);
  }

  const painted = new MessageChannel();
  painted.port1.onmessage = () => {
    if (probe.start === null) return;
    const begin = performance.now(), now = probe.fingerprint();
    probe.cost = Math.max(probe.cost, performance.now() - begin);
    if (now === null || now === probe.latest) return;
    probe.latest = now;
    probe.last = begin - probe.start;
    probe.changes += 1;
    if (probe.first === null) probe.first = probe.last;
  };
  const tick = () => {
    if (probe.start !== null && probe.first !== null && probe.paint === null) probe.paint = performance.now() - probe.start;
    painted.port2.postMessage(null);
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);

  probe.hold = (handle, forth, back, ms) => new Promise((done) => {
    const at = () => ["now", "min", "max"].map((what) => Number(handle.getAttribute(`aria-value${what}`)));
    let key = forth;
    probe.arm("keydown");
    const press = setInterval(() => {
      const [now, low, high] = at();
      if (now <= low) key = forth;
      if (now >= high) key = back;
      handle.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    }, 1000 / 30);
    setTimeout(() => { clearInterval(press); done(1000 * probe.changes / ms); }, ms);
  });
}
