'use strict';
// Shows the examples of one question type and one result. Without it, all examples are listed.
const form = document.getElementById('filters');
const examples = [...document.querySelectorAll('#examples details')];

function filter() {
  const kind = form.elements.kind.value;
  const result = form.elements.result.value;
  for (const example of examples) {
    const fits = (!kind || example.dataset.kind === kind)
      && (!result || example.dataset.result === result);
    example.hidden = !fits;
  }
  const shown = examples.filter((example) => !example.hidden);
  if (shown.length && !shown.some((example) => example.open)) shown[0].open = true;
  form.elements.count.value = `${shown.length} of ${examples.length} examples`;
}

if (form) {
  form.hidden = false;
  form.addEventListener('change', filter);
  filter();
}
