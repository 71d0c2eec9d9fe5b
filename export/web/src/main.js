/** The page: it classifies an image and shows the classes and a map. */

import { closeCamera, openCamera } from "./camera.js";
import { loadClassifier } from "./classifier.js";
import { drawMap, mapOf, placeOf } from "./heatmap.js";
import { openPhoto, turned } from "./photo.js";
import { centralSquare, readPixels } from "./resample.js";

const TOP = 5;
const SMALL = 100; // pixels; smaller images are shown with square pixels
const QUIET = 3000; // milliseconds between announcements of the camera
const SLOW = 1000; // milliseconds between its images with reduced motion

const $ = (id) => document.getElementById(id);
const percent = (x) => `${(100 * x).toFixed(1)} %`;
const lessMotion = matchMedia("(prefers-reduced-motion: reduce)");

let classifier;
let video = null; // while the camera is on
let result = null; // of the last image
let chosen = null; // the class whose map is shown; null for the top class
let announced = { time: -QUIET };
let latest = 0; // counts opened files; earlier files that finish late are dropped

function report(problem) {
  $("problem").textContent = problem?.message ?? "";
}

/** Removes the previous image, which a problem is not about. */
function clear() {
  $("answer").hidden = $("map").hidden = true;
  $("status").textContent = "";
  $("stage").classList.remove("filled");
  $("photo").setAttribute("aria-label", "No image yet");
  const { width, height } = $("photo");
  $("photo").getContext("2d").clearRect(0, 0, width, height);
}

/** Classifies a photo and shows it with the result. */
async function look(photo) {
  const { size, cropFraction } = classifier;
  const pixels = readPixels(photo, size, cropFraction);
  show(photo, centralSquare(photo.width, photo.height, size, cropFraction).box);
  result = await classifier.classify(pixels);
  document.dispatchEvent(
    new CustomEvent("classified", { detail: { pixels, ...result } }),
  );
  render();
}

function show({ source, matrix }, [left, top, boxWidth, boxHeight]) {
  const context = $("photo").getContext("2d");
  const { width, height } = context.canvas;
  context.save();
  context.imageSmoothingEnabled = boxWidth > SMALL;
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.scale(width / boxWidth, height / boxHeight);
  context.translate(-left, -top);
  context.transform(...matrix);
  context.drawImage(source, 0, 0);
  context.restore();
  $("stage").classList.add("filled");
}

function render() {
  const { predictions, milliseconds } = result;
  const order = Array.from(predictions.keys());
  order.sort((a, b) => predictions[b] - predictions[a]);
  const rows = $("results");
  order.slice(0, TOP).forEach((number, place) => {
    const row = rows.children[place] ?? rows.appendChild(newRow());
    renderRow(row, number, number === (chosen ?? order[0]));
  });
  renderMap(chosen ?? order[0]);
  const name = classifier.classNames[order[0]];
  const summary = `${name}, ${percent(predictions[order[0]])}`;
  $("photo").setAttribute("aria-label", `The image, classified as ${summary}`);
  $("timing").textContent =
    `${milliseconds.toFixed(1)} ms for this image, on your processor.`;
  $("answer").hidden = false;
  announce(name, video ? `Camera: ${name}` : `This looks like: ${summary}.`);
}

function newRow() {
  const row = document.createElement("li");
  row.innerHTML =
    '<button type="button"><span class="name"></span>' +
    '<span class="percent"></span><span class="bar"></span></button>';
  row.firstChild.addEventListener("click", () => {
    chosen = Number(row.dataset.number);
    $("show").checked = true;
    render();
  });
  return row;
}

function renderRow(row, number, pressed) {
  const [name, value, bar] = row.firstChild.children;
  const likelihood = percent(result.predictions[number]);
  row.dataset.number = number;
  row.firstChild.setAttribute("aria-pressed", pressed);
  name.textContent = classifier.classNames[number];
  value.textContent = likelihood;
  bar.style.setProperty("--share", result.predictions[number]);
}

function renderMap(number) {
  $("explanation").hidden = !result.maps;
  const shown = result.maps && $("show").checked;
  for (const id of ["map", "where", "scale"]) $(id).hidden = !shown;
  if (!shown) return;
  const map = mapOf(result.maps, number);
  drawMap($("map"), map);
  $("where").textContent =
    `The strongest evidence for ${classifier.classNames[number]} is ` +
    `${placeOf(map)} of the square.`;
  const [least, , most] = $("scale").children;
  least.textContent = `${map.least.toFixed(1)} logits`;
  most.textContent = `${map.most.toFixed(1)} logits`;
}

/** Informs screen readers, but not about every image of the camera. */
function announce(name, text) {
  const time = performance.now();
  const same = name === announced.name || time - announced.time < QUIET;
  if (video && same) return;
  $("status").textContent = text;
  announced = { name, time };
}

async function openFile(file) {
  if (!file || !classifier) return;
  stopCamera();
  report(null);
  const turn = ++latest;
  try {
    const photo = await openPhoto(file, classifier.orientation);
    if (turn === latest) {
      chosen = null;
      await look(photo);
    }
    photo.source.close();
  } catch (error) {
    if (turn === latest) clear();
    report(error);
  }
}

async function openSample() {
  try {
    const response = await fetch($("sample").firstElementChild.src);
    await openFile(await response.blob());
  } catch {
    report(new Error("The cat was not loaded: the server can't be reached."));
  }
}

async function toggleCamera() {
  if (video) return stopCamera();
  report(null);
  $("camera").disabled = true;
  try {
    video = await openCamera();
    const turn = ++latest;
    chosen = null;
    announced = { time: -QUIET };
    setCameraButton(true);
    watch(turn);
  } catch (error) {
    report(error);
  } finally {
    $("camera").disabled = false;
  }
}

async function watch(turn) {
  const source = video;
  try {
    while (video === source && turn === latest) {
      await look(turned(source, source.videoWidth, source.videoHeight));
      await new Promise((next) =>
        lessMotion.matches
          ? setTimeout(next, SLOW)
          : requestAnimationFrame(next),
      );
    }
  } catch (error) {
    stopCamera();
    report(error);
  }
}

function stopCamera() {
  if (video) closeCamera(video);
  video = null;
  setCameraButton(false);
}

function setCameraButton(on) {
  $("camera").setAttribute("aria-pressed", on);
  $("camera").textContent = on ? "Stop the camera" : "Use the camera";
}

function listen() {
  $("file").addEventListener("change", ({ target }) => {
    openFile(target.files[0]);
    target.value = ""; // so that the same file can be chosen again
  });
  $("sample").addEventListener("click", openSample);
  $("camera").addEventListener("click", toggleCamera);
  $("show").addEventListener("change", () => render());
  addEventListener("paste", (event) => openFile(event.clipboardData.files[0]));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    $("stage").classList.add("over");
  });
  addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) $("stage").classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    $("stage").classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) openFile(file);
    else report(new Error("The dropped item is not a file."));
  });
}

async function start() {
  listen();
  try {
    const loaded = await loadClassifier("model", "wasm");
    // The first image takes longer: memory is allocated, threads are started.
    await loaded.classify(new Uint8Array(loaded.size ** 2 * 3));
    classifier = loaded;
  } catch (error) {
    $("status").textContent = "";
    return report(error);
  }
  const { size } = classifier;
  $("note").textContent =
    `The model's input has ${size} x ${size} pixels. ` +
    $("note").textContent;
  if (classifier.description) $("about").textContent = classifier.description;
  $("status").textContent = "Ready for an image.";
  for (const id of ["file", "camera", "sample"]) $(id).disabled = false;
}

start();
