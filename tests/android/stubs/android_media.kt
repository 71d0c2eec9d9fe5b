package android.media

import java.io.IOException
import java.io.InputStream

class ExifInterface @Throws(IOException::class) constructor(inputStream: InputStream) {
    private val stream = inputStream

    fun getAttributeInt(tag: String, defaultValue: Int): Int = TODO("$stream $tag $defaultValue")

    companion object {
        const val TAG_ORIENTATION = "Orientation"
    }
}
