package android.widget

import android.graphics.Bitmap
import android.view.View
import android.view.ViewGroup

open class TextView : View() {
    var text: CharSequence? = null

    fun setText(resid: Int): Unit = TODO("$resid")
}

open class Button : TextView()

abstract class CompoundButton : Button() {
    var isChecked = false

    fun interface OnCheckedChangeListener {
        fun onCheckedChanged(buttonView: CompoundButton, isChecked: Boolean)
    }

    fun setOnCheckedChangeListener(listener: OnCheckedChangeListener?): Unit = TODO("$listener")
}

class Switch : CompoundButton()

class ImageView : View() {
    fun setImageBitmap(bm: Bitmap?): Unit = TODO("$bm")
}

class LinearLayout : ViewGroup()

class ProgressBar : View() {
    var max = 100
    var progress = 0
}
