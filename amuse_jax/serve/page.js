// A click on a frame or a segment plays the video from there, and a line shows where it is.
const player = () => document.querySelector('#video video');

document.addEventListener('click', (event) => {
  const place = event.target.closest('[data-seconds]');
  if (!place || !player()) return;
  player().currentTime = Number(place.dataset.seconds);
  player().play().catch(() => {}); // the browser may forbid it; the picture has moved all the same
});

// Events of media do not bubble, but they can be captured.
for (const name of ['timeupdate', 'seeked']) {
  document.addEventListener(name, (event) => {
    const line = document.querySelector('.playhead');
    if (!line || event.target !== player()) return;
    const { left, width, seconds } = line.dataset;
    const share = Math.min(player().currentTime / Number(seconds), 1);
    line.style.left = `${Number(left) + Number(width) * share}%`;
    line.style.display = 'block';
  }, true);
}
