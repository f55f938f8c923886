import { mount } from "svelte"
// @ts-expect-error: Svelte's own tools know the types of components
import App from "./App.svelte"
import "./view.js"

mount(App, { target: document.getElementById("app")! })
