// Matches and outlines on a canvas over both photos.

const EDGE = "rgba(0, 0, 0, 0.55)";
const REJECTED = "rgba(255, 255, 255, 0.55)";

/**
 * One colour per inlier by where it lies in the query: around the middle of all of them the hue goes
 * once around the wheel, towards the middle it pales.  The same colour in both photos is the same match.
 */
export function matchColours(inliers) {
  if (!inliers.length) return [];
  const middle = [0, 1].map((axis) => median(inliers.map((match) => match.query[axis])));
  const offsets = inliers.map(({ query: [x, y] }) => [x - middle[0], y - middle[1]]);
  const reach = Math.max(...offsets.map(([x, y]) => Math.hypot(x, y)), 1);
  return offsets.map(([x, y]) => {
    const hue = (Math.atan2(y, x) * 180) / Math.PI + 200;
    const distance = Math.sqrt(Math.hypot(x, y) / reach);
    return `hsl(${hue.toFixed(0)} ${(60 + 35 * distance).toFixed(0)}% ${(78 - 16 * distance).toFixed(0)}%)`;
  });
}

/** Draws `scene` in CSS px: `areas` are the two panes, `places` where the photos lie in them. */
export function draw(context, scene) {
  const { areas, places, layers, active } = scene;
  const at = ([x, y], side) => [
    areas[side].left + places[side].x + (x + 0.5) * places[side].scale,
    areas[side].top + places[side].y + (y + 0.5) * places[side].scale,
  ];
  const both = (match) => [at(match.query, 0), at(match.database, 1)];
  const inPanes = (paint) => [0, 1].forEach((side) => clipped(context, areas[side], () => paint(side)));

  if (layers.outlines) {
    inPanes((side) => polygon(context, scene.regions[side].map((point) => at(point, side)), []));
    if (scene.box) clipped(context, areas[0], () => polygon(context, scene.box.map((point) => at(point, 0)), [7, 5]));
  }
  if (layers.rejected) {
    const pairs = scene.rejected.map(both);
    inPanes((side) => pairs.forEach((ends) => cross(context, ends[side])));
    if (layers.lines) pairs.filter((ends) => areVisible(ends, areas)).forEach((ends) => line(context, ends, REJECTED, 0.75));
  }
  const pairs = scene.inliers.map(both);
  if (layers.lines) {
    pairs.forEach((ends, index) => areVisible(ends, areas) && line(context, ends, scene.colours[index], 1.25));
  }
  if (layers.points) {
    const radius = pointRadius(pairs.length);
    inPanes((side) => pairs.forEach((ends, index) => dot(context, ends[side], radius, scene.colours[index])));
  }
  if (active !== null) highlight(context, scene, pairs[active]);
}

/** The inlier nearest to `at` in pane `side`, at most `reach` CSS px away; null if there is none. */
export function nearestMatch(scene, side, at, reach) {
  const { scale, x, y } = scene.places[side];
  let best = null;
  let least = reach;
  scene.inliers.forEach((match, index) => {
    const [px, py] = side === 0 ? match.query : match.database;
    const distance = Math.hypot(x + (px + 0.5) * scale - at[0], y + (py + 0.5) * scale - at[1]);
    if (distance < least) [best, least] = [index, distance];
  });
  return best;
}

function highlight(context, { areas, colours, active }, ends) {
  if (areVisible(ends, areas)) {
    line(context, ends, EDGE, 4);
    line(context, ends, colours[active], 2);
  }
  [0, 1].forEach((side) =>
    clipped(context, areas[side], () => {
      dot(context, ends[side], 8, colours[active]);
      label(context, ends[side], String(active + 1));
    }),
  );
}

function clipped(context, area, paint) {
  context.save();
  context.beginPath();
  context.rect(area.left, area.top, area.width, area.height);
  context.clip();
  paint();
  context.restore();
}

function polygon(context, points, dash) {
  if (!points.length) return;
  context.beginPath();
  points.forEach(([x, y]) => context.lineTo(x, y));
  context.closePath();
  context.lineJoin = "round";
  stroke(context, EDGE, 4);
  context.setLineDash(dash);
  stroke(context, "rgba(255, 255, 255, 0.95)", 1.75);
  context.setLineDash([]);
}

function line(context, [[x1, y1], [x2, y2]], colour, width) {
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  stroke(context, colour, width);
}

function dot(context, [x, y], radius, colour) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
  stroke(context, EDGE, 1.25);
}

function cross(context, [x, y]) {
  context.beginPath();
  context.moveTo(x - 3, y - 3);
  context.lineTo(x + 3, y + 3);
  context.moveTo(x + 3, y - 3);
  context.lineTo(x - 3, y + 3);
  stroke(context, EDGE, 3);
  stroke(context, "rgba(255, 255, 255, 0.85)", 1.25);
}

function label(context, [x, y], text) {
  context.font = "600 13px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.lineWidth = 4;
  context.lineJoin = "round";
  context.strokeStyle = "rgba(0, 0, 0, 0.8)";
  context.strokeText(text, x + 13, y);
  context.fillStyle = "#fff";
  context.fillText(text, x + 13, y);
}

function stroke(context, colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

// Many points hide the photo: they get smaller as they get more.
const pointRadius = (number) => Math.min(Math.max(7 - Math.log2(number + 1) / 2, 3), 5.5);

const areVisible = (ends, areas) =>
  ends.every(([x, y], side) => {
    const { left, top, width, height } = areas[side];
    return x >= left && x <= left + width && y >= top && y <= top + height;
  });

function median(values) {
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)];
}
