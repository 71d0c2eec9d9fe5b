package com.example.convmixer

import java.io.File
import javax.imageio.ImageIO

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
    val photo = Photo(
        width.toInt(),
        height.toInt(),
        File(folder, "$name.rgba").readBytes(),
        orientation = orientation.toInt(),
    )
    File(folder, "$name.rgb").writeBytes(evaluationPixels(photo, size.toInt(), crop))
}

private fun decode(file: File): Photo {
    val image = ImageIO.read(file)
    val bytes = ByteArray(Photo.PIXEL_BYTES * image.width * image.height)
    for (pixel in 0 until image.width * image.height) {
        val colour = image.getRGB(pixel % image.width, pixel / image.width)
        for (channel in 0 until CHANNELS) {
            bytes[Photo.PIXEL_BYTES * pixel + channel] = (colour shr (16 - 8 * channel)).toByte()
        }
    }
    return Photo(image.width, image.height, bytes)
}

private fun prepare(assets: File): ByteArray {
    val model = ModelDescription.parse(File(assets, "model.json").readText())
    return evaluationPixels(decode(File(assets, "golden.png")), model.imageSize, model.cropFraction)
}

private fun judge(assets: File, pixels: ByteArray, scores: File) {
    val expected = decode(File(assets, "golden_pixels.png"))
    val predictions = scores.readLines().map {
        val (name, index, score) = it.split("\t")
        Prediction(name, index.toInt(), score.toFloat())
    }
    val golden = Golden.parse(File(assets, "golden.json").readText())
    val verdict = golden.judge(
        pixels,
        evaluationPixels(expected, expected.width, 1.0),
        predictions.sortedByDescending { it.score },
        Processor.CPU,
    )
    println("${verdict.passed} ${verdict.pixelDifference} ${verdict.scoreDifference}")
}
