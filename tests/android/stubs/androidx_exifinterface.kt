package androidx.exifinterface.media

import java.io.IOException
import java.io.InputStream

open class ExifInterface @Throws(IOException::class) constructor(private val stream: InputStream) {
    open fun getAttributeInt(tag: String, defaultValue: Int): Int =
        TODO("$stream $tag $defaultValue")

    companion object {
        const val TAG_ORIENTATION = "Orientation"
    }
}
