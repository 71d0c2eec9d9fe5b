package android.content

import android.content.res.AssetManager
import android.net.Uri
import java.io.File
import java.io.InputStream

open class ActivityNotFoundException : RuntimeException()

abstract class ContentResolver {
    fun openInputStream(uri: Uri): InputStream? = TODO("$uri")
}

abstract class Context {
    val assets: AssetManager get() = TODO()
    val cacheDir: File get() = TODO()
    val contentResolver: ContentResolver get() = TODO()
    val packageName: String get() = TODO()

    fun getString(resId: Int): String = TODO("$resId")

    fun getString(resId: Int, vararg formatArgs: Any?): String = TODO("$resId $formatArgs")
}
