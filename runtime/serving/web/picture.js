// Strokes become the grey picture that the model gets: values from 0 to 1, light strokes on black.
//
// The strokes are lines; they are scaled and moved first, and then drawn with a pen of the width that the digits of the
// data have. So a digit looks the same, however large it was drawn.
//   28 x 28, as MNIST: the digit fits into 20 x 20 pixels, and its centre of mass is in the centre of the picture.
//   Another size: it fits into the height and three quarters of the width, and is in the centre.

const FINE = 8; // each pixel is the mean of so many by so many
const LARGEST = 6; // times larger at most: a dot stays a dot

export function preparation(height, width) {
  const mnist = height === 28 && width === 28;
  return {
    mnist,
    box: mnist ? [20, 20] : [height, 0.75 * width],
    pen: mnist ? 2.4 : 0.2 * Math.min(height, width),
  };
}

export function explain(height, width) {
  const { mnist } = preparation(height, width);
  const how = mnist
    ? "as MNIST's digits are: into 20 × 20 of the 28 × 28 pixels, with the centre of mass in the middle"
    : `to the height and three quarters of the width of the ${height} × ${width} pixels, and put in the middle`;
  return `The strokes are scaled ${how}, and drawn with a pen of the data's width. Without the tick they stay where they are.`;
}

// strokes: lists of [x, y], as shares of the drawing area's width and height
export function render(strokes, height, width, centred) {
  const { mnist, box, pen } = preparation(height, width);
  const points = strokes.map((stroke) => stroke.map(([x, y]) => [x * width, y * height]));
  if (!points.length) return new Float32Array(height * width);
  if (!centred) return draw(points, height, width, pen, 1, 0, 0);
  const xs = points.flat().map(([x]) => x);
  const ys = points.flat().map(([, y]) => y);
  const [left, right, top, bottom] = [least(xs), -least(xs.map((x) => -x)), least(ys), -least(ys.map((y) => -y))];
  const scale = Math.min((box[1] - pen) / (right - left), (box[0] - pen) / (bottom - top), LARGEST);
  let [dx, dy] = [(width - scale * (left + right)) / 2, (height - scale * (top + bottom)) / 2];
  const values = draw(points, height, width, pen, scale, dx, dy);
  if (!mnist) return values;
  const [x, y] = centreOfMass(values, width);
  return draw(points, height, width, pen, scale, dx + width / 2 - x, dy + height / 2 - y);
}

const least = (values) => values.reduce((a, b) => Math.min(a, b));

function centreOfMass(values, width) {
  let [mass, x, y] = [0, 0, 0];
  values.forEach((value, i) => {
    mass += value;
    x += value * ((i % width) + 0.5);
    y += value * (Math.floor(i / width) + 0.5);
  });
  return [x / mass, y / mass];
}

function draw(strokes, height, width, pen, scale, dx, dy) {
  const fine = Math.max(1, Math.min(FINE, Math.floor(512 / Math.max(height, width))));
  const canvas = new OffscreenCanvas(width * fine, height * fine);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.setTransform(scale * fine, 0, 0, scale * fine, dx * fine, dy * fine);
  context.strokeStyle = "#fff";
  trace(context, strokes, pen / scale);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const values = new Float32Array(height * width);
  for (let i = 0; i < canvas.width * canvas.height; i++) {
    const [x, y] = [i % canvas.width, Math.floor(i / canvas.width)];
    values[Math.floor(y / fine) * width + Math.floor(x / fine)] += data[4 * i + 3] / (255 * fine * fine);
  }
  return values.map((value) => Math.min(value, 1));
}

export function trace(context, strokes, pen) {
  context.lineWidth = pen;
  context.lineCap = context.lineJoin = "round";
  for (const [first, ...rest] of strokes) {
    context.beginPath();
    context.moveTo(...first);
    context.lineTo(first[0] + pen / 100, first[1]); // a line of no length would be no dot
    rest.forEach((point) => context.lineTo(...point));
    context.stroke();
  }
}

export function show(canvas, values, height, width) {
  [canvas.width, canvas.height] = [width, height];
  const pixels = new ImageData(width, height);
  values.forEach((value, i) => pixels.data.set([255 * value, 255 * value, 255 * value, 255], 4 * i));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
