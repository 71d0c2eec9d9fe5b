package com.example.convmixer

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import javax.imageio.ImageIO

// What golden.png says of itself, which Java does not read.
private const val GOLDEN_ORIENTATION = 6

/**
 * Runs what the app does with pixels, where there is no phone.
 *
 * `transform FOLDER`: for each line of FOLDER/cases.txt (name, stored width and
 * height, EXIF orientation, size, crop fraction) reads NAME.rgba, writes NAME.rgb.
 * `prepare ASSETS FILE`: writes what the model gets of the bundled image.
 * `judge ASSETS PIXELS SCORES`: prints the self-test's verdict on the pixels and
 * the scores, lines of class, index and score.
 */
fun main(arguments: Array<String>) {
    val folder = File(arguments[1])
    when (arguments[0]) {
        "transform" -> File(folder, "cases.txt").readLines().forEach { transform(folder, it) }
        "prepare" -> File(arguments[2]).writeBytes(prepare(folder))
        "judge" -> judge(folder, File(arguments[2]).readBytes(), File(arguments[3]))
        else -> error("Unknown: ${arguments[0]}")
    }
}

private fun transform(folder: File, line: String) {
    val (name, width, height, orientation, size) = line.split(" ")
    val crop = line.split(" ").last().toDouble()
    val pixels = ByteBuffer.wrap(File(folder, "$name.rgba").readBytes())
        .order(ByteOrder.LITTLE_ENDIAN)
        .asIntBuffer()
    val stored = IntArray(pixels.remaining()).also(pixels::get)
    val photo = Photo(stored, width.toInt(), height.toInt(), orientation.toInt())
    val result = evaluationPixels(photo, size.toInt(), crop)
    File(folder, "$name.rgb").writeBytes(rgbOf(result))
}

/** Gives red, green and blue bytes of pixels. */
private fun rgbOf(pixels: IntArray) = ByteArray(3 * pixels.size) {
    (pixels[it / 3] shr 8 * (it % 3)).toByte()
}

private fun pixelsOf(rgb: ByteArray) = IntArray(rgb.size / 3) { at ->
    (0..2).fold(0xff shl 24) { pixel, channel ->
        pixel or (rgb[3 * at + channel].toInt() and 0xff shl 8 * channel)
    }
}

private fun decode(file: File, orientation: Int = 1): Photo {
    val image = ImageIO.read(file)
    val rgb = image.getRGB(0, 0, image.width, image.height, null, 0, image.width)
    // From Java's order of the colors to Android's bitmaps'.
    val pixels = IntArray(rgb.size) { Integer.reverseBytes(rgb[it] shl 8) or (0xff shl 24) }
    return Photo(pixels, image.width, image.height, orientation)
}

private fun prepare(assets: File): ByteArray {
    val model = ModelDescription.parse(File(assets, "model.json").readText())
    val photo = decode(File(assets, "golden.png"), if (model.turn) GOLDEN_ORIENTATION else 1)
    return rgbOf(model.pixelsOf(photo))
}

private fun judge(assets: File, pixels: ByteArray, scores: File) {
    val expected = decode(File(assets, "golden_pixels.png"))
    val predictions = scores.readLines().map {
        val (name, index, score) = it.split("\t")
        Prediction(name, index.toInt(), score.toFloat())
    }
    val sorted = withOpposite(predictions.sortedByDescending { it.score })
    val golden = Golden.parse(File(assets, "golden.json").readText())
    val verdict = golden.judge(
        pixelsOf(pixels),
        evaluationPixels(expected, expected.width, 1.0),
        Answer(sorted, Processor.CPU, 0, null),
    )
    println("${verdict.passed} ${verdict.pixelDifference} ${verdict.scoreDifference}")
}
