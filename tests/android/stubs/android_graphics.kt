package android.graphics

import java.io.InputStream
import java.nio.Buffer

class Rect

class Bitmap private constructor() {
    enum class Config { ALPHA_8, RGB_565, ARGB_4444, ARGB_8888, RGBA_F16, HARDWARE }

    val width: Int get() = TODO()
    val height: Int get() = TODO()
    val config: Config? get() = TODO()

    fun hasAlpha(): Boolean = TODO()

    fun copy(config: Config, isMutable: Boolean): Bitmap? = TODO("$config $isMutable")

    fun copyPixelsFromBuffer(src: Buffer): Unit = TODO("$src")

    fun copyPixelsToBuffer(dst: Buffer): Unit = TODO("$dst")

    fun recycle(): Unit = TODO()

    companion object {
        fun createBitmap(width: Int, height: Int, config: Config): Bitmap =
            TODO("$width $height $config")
    }
}

class Canvas(private val bitmap: Bitmap) {
    fun drawColor(color: Int, mode: PorterDuff.Mode): Unit = TODO("$bitmap $color $mode")
}

object Color {
    const val WHITE = -1
}

class PorterDuff {
    enum class Mode { DST_OVER }
}

object BitmapFactory {
    class Options {
        var inJustDecodeBounds = false
        var inMutable = false
        var inSampleSize = 0
        var outHeight = 0
        var outWidth = 0
    }

    fun decodeStream(input: InputStream?, outPadding: Rect?, opts: Options?): Bitmap? =
        TODO("$input $outPadding $opts")
}
