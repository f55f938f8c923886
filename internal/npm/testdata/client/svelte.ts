import { mount } from "svelte"
import App from "./App.svelte"
import "./view.js"

mount(App, { target: document.getElementById("app")! })
