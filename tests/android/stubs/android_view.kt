package android.view

open class View {
    var isEnabled = true
    var visibility = VISIBLE

    fun interface OnClickListener {
        fun onClick(v: View)
    }

    fun setOnClickListener(l: OnClickListener?): Unit = TODO("$l")

    fun <T : View> findViewById(id: Int): T = TODO("$id")

    companion object {
        const val VISIBLE = 0
        const val INVISIBLE = 4
        const val GONE = 8
    }
}

abstract class ViewGroup : View() {
    fun addView(child: View): Unit = TODO("$child")

    fun removeAllViews(): Unit = TODO()
}

abstract class LayoutInflater {
    fun inflate(resource: Int, root: ViewGroup?, attachToRoot: Boolean): View =
        TODO("$resource $root $attachToRoot")
}
