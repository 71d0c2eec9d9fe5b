/** The camera, with a helpful message if it is not available. */

const MESSAGES = {
  NotAllowedError:
    "The camera was blocked. Allow it in the browser's settings for this " +
    "page, or choose an image.",
  NotFoundError: "There is no camera on this device. Choose an image instead.",
  NotReadableError: "The camera is in use by another program.",
};

/**
 * Opens the camera, preferably the back camera.
 *
 * @returns {Promise<HTMLVideoElement>} A playing video.
 * @throws {Error} With a message for the user.
 */
export async function openCamera() {
  if (!navigator.mediaDevices) {
    throw new Error(
      "Browsers allow the camera only to pages from https or localhost.",
    );
  }
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment" },
    });
    await video.play();
  } catch (error) {
    closeCamera(video);
    throw new Error(
      MESSAGES[error.name] ?? `The camera failed: ${error.message}`,
    );
  }
  return video;
}

/** Turns the camera off. */
export function closeCamera(video) {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
}
